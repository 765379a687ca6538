# Sourced by bash inside the copy of the context.
ln -s file tofile
ln -s dir todir
ln -s file l1
ln -s y d/link
ln -s /nowhere d/dangling
ln -s ../dir d/dirlink
