mkdir -p sub ignored
echo content > sub/file
printf '#!/bin/sh\necho ran\n' > sub/script
chmod 755 sub/script
chmod 640 sub/file
ln -s sub link
ln -s ../../../../sub/file outside
echo secret > ignored/key
echo log > a.log
printf '*.log\nignored\n.dockerignore\nsetup.sh\n' > .dockerignore
[ "$(id -u)" != 0 ] || chown -R 1234:4321 sub
