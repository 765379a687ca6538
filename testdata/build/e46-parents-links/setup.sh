# Sourced by bash inside the copy of the context.
ln -s x tox && ln -s y/b.txt x/in && ln -s ../y x/up
