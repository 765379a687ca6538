#!/bin/bash
# Makes base images from Debian's distribution packages, for machines that reach no container registry, and imports
# them into Kiln's store:
#
#   busybox:latest         the busybox-static package
#   debian:bookworm-slim   mmdebstrap, minbase variant, without man pages, docs and locales (as the official slim image)
#   python:3.11-slim       the same and python3, pip, CA certificates
#   busybox-arm64          busybox:latest for linux/arm64; only when it is asked for
#
# The images hold what the packages hold and nothing of this machine. The same package versions give the same bytes.
#
# Usage: scripts/make-base-images.sh [options] [busybox|debian|python|busybox-arm64 ...]      (default: the first three)
#   --tars-only        make the root file system tars, import nothing
#   --force            make the tars again although they are there
#   --kiln PATH        the kiln binary (default: $KILN_BIN, target/**/kiln of this checkout, kiln on the PATH)
#   --root DIR         Kiln's store (default: Kiln's own default)
#   --cache DIR        where the tars are kept (default: ${XDG_CACHE_HOME:-~/.cache}/kiln-base-images)
#
# Runs as root or as an ordinary user. Missing packages are installed with apt-get, through sudo when not root.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

usage() { sed -n '2,/^set -e/p' "${BASH_SOURCE[0]}" | sed -e '$d' -e 's/^# \{0,1\}//'; }

suite=bookworm
# Any fixed time does. It lies after the release of every package of the suite, so that no file's time is clamped
# to an earlier one (Python checks the times of its compiled files).
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1793491200}
cache=${KILN_BASE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kiln-base-images}
import=yes
force=no
kiln=${KILN_BIN:-}
root_option=()
wanted=()
while [ $# -gt 0 ]; do
  case $1 in
    --tars-only) import=no ;;
    --force) force=yes ;;
    --kiln) kiln=${2:?--kiln needs a path}; shift ;;
    --root) root_option=(--root "${2:?--root needs a folder}"); shift ;;
    --cache) cache=${2:?--cache needs a folder}; shift ;;
    -h|--help) usage; exit 0 ;;
    busybox|busybox:latest) wanted+=(busybox) ;;
    debian|debian:bookworm-slim) wanted+=(debian) ;;
    python|python:3.11-slim) wanted+=(python) ;;
    busybox-arm64|busybox-arm64:latest) wanted+=(busybox-arm64) ;;
    *) usage >&2; die "unknown argument: $1" ;;
  esac
  shift
done
[ ${#wanted[@]} -gt 0 ] || wanted=(busybox debian python)

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock -n 9 || { say "waiting for another run that uses $cache"; flock 9; }
work=$(mktemp -d "$cache/making.XXXXXX")
trap 'rm -rf "$work"' EXIT

make_busybox() { # OUTPUT [PROGRAM of another architecture]
  need_packages busybox-static
  local busybox root=$work/root-of-busybox applet
  # busybox-static and busybox are both at /bin/busybox; only the static one runs in an empty root.
  busybox=$(command -v busybox) || die "busybox is not on the PATH although busybox-static is installed"
  mkdir -p "$root"/{bin,dev,etc,home,proc,root,sys,tmp,usr/bin,usr/sbin,var/tmp}
  cp "${2:-$busybox}" "$root/bin/busybox"
  chmod 755 "$root/bin/busybox"
  "$busybox" --list | while read -r applet; do
    [ "$applet" = busybox ] || ln -f "$root/bin/busybox" "$root/bin/$applet"
  done
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'daemon:x:1:1:daemon:/usr/sbin:/bin/false' \
    'www-data:x:33:33:www-data:/var/www:/bin/false' 'nobody:x:65534:65534:nobody:/home:/bin/false' > "$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'daemon:x:1:' 'www-data:x:33:' 'users:x:100:' 'nogroup:x:65534:' > "$root/etc/group"
  ln -s /bin/env "$root/usr/bin/env"
  find "$root" -type d -exec chmod 755 {} +
  chmod 644 "$root/etc/passwd" "$root/etc/group"
  chmod 1777 "$root/tmp" "$root/var/tmp"
  chmod 700 "$root/root"
  tar --format=posix --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' --sort=name \
    --mtime="@$SOURCE_DATE_EPOCH" --numeric-owner --owner=0 --group=0 -C "$root" -cf "$1" .
  rm -rf "$root"
}

# The same with the program of another architecture, which is unpacked and not run.
make_busybox_for() { # OUTPUT ARCHITECTURE
  need_packages mmdebstrap uidmap debian-archive-keyring
  local mode=auto extracted=$work/extracted
  [ "$(id -u)" = 0 ] && mode=root
  mmdebstrap --variant=extract --mode="$mode" --architectures="$2" --skip=check/qemu,check/empty,output/dev \
    --aptopt='Acquire::Check-Valid-Until "false"' --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --include=busybox-static "$suite" "$work/extracted.tar" "$(mirror_of_this_machine)"
  mkdir -p "$extracted"
  tar -C "$extracted" --no-same-owner -xf "$work/extracted.tar" ./bin/busybox
  make_busybox "$1" "$extracted/bin/busybox"
}

mirror_of_this_machine() {
  local mirror=''
  if [ -e /etc/debian_version ] && grep -qs '^ID=debian' /etc/os-release; then
    mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
    [ -n "$mirror" ] || mirror=$(awk '$1 == "deb" && $2 ~ /debian/ {print $2; exit}' /etc/apt/sources.list 2>/dev/null || true)
  fi
  echo "${KILN_DEBIAN_MIRROR:-${mirror:-http://deb.debian.org/debian}}"
}

make_debian() { # OUTPUT PACKAGES [mmdebstrap options...]
  local output=$1 packages=$2 path mode=auto
  shift 2
  need_packages mmdebstrap uidmap debian-archive-keyring
  [ "$(id -u)" = 0 ] && mode=root
  local options=(--variant=minbase --mode="$mode" --skip=check/qemu,check/empty,output/dev
    --aptopt='Acquire::Check-Valid-Until "false"'
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg)
  for path in /usr/share/man /usr/share/doc /usr/share/locale /usr/share/info /usr/share/groff /usr/share/lintian; do
    options+=(--dpkgopt="path-exclude=$path/*")
  done
  options+=(--dpkgopt='path-include=/usr/share/doc/*/copyright')
  # A merged /usr from the start: otherwise the package usrmerge comes in, and all of Perl with it.
  options+=(--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include="usr-is-merged${packages:+,$packages}")
  # shellcheck disable=SC2016  # mmdebstrap's hooks see the root as $1
  options+=(--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/cache/ldconfig/aux-cache "$1"/var/log/*.log "$1"/var/log/apt')
  # The names of the machine that makes the image do not belong into it.
  options+=(--customize-hook='rm -f "$1"/etc/hostname "$1"/etc/resolv.conf; : > "$1"/etc/machine-id')
  # On a network that re-signs TLS only https mirrors are touched by it; the default is http with signed indices.
  mmdebstrap "${options[@]}" "$@" "$suite" "$work/root.tar" "$(mirror_of_this_machine)"
  # The device nodes are left out, and their folder with them: an image has it, empty.
  mkdir -p "$work/empty/dev"
  tar --append --file="$work/root.tar" --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --numeric-owner --owner=0 --group=0 \
    --mode=755 -C "$work/empty" ./dev
  mv "$work/root.tar" "$output"
}

# shellcheck disable=SC2016
make_python() { # OUTPUT
  make_debian "$1" ca-certificates,netbase,python3,python3-pip,tzdata \
    --customize-hook='ln -sf python3 "$1"/usr/bin/python' \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
}

default_path='PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
for name in "${wanted[@]}"; do
  platform=()
  case $name in
    busybox) reference=busybox:latest changes=('CMD ["sh"]') ;;
    busybox-arm64) reference=busybox-arm64:latest changes=('CMD ["sh"]') platform=(--platform linux/arm64) ;;
    debian) reference=debian:bookworm-slim changes=('CMD ["bash"]') ;;
    python) reference=python:3.11-slim
      changes=('ENV LANG=C.UTF-8' 'ENV PYTHON_VERSION=3.11' 'CMD ["python3"]') ;;
  esac
  tar_file=$cache/$(echo "$reference" | tr : -).tar
  if [ "$force" = yes ] || [ ! -s "$tar_file" ] || [ ! -s "${tar_file%.tar}.changes" ]; then
    say "making $reference from Debian packages"
    case $name in
      busybox) make_busybox "$work/$name.tar" ;;
      busybox-arm64) make_busybox_for "$work/$name.tar" arm64 ;;
      debian) make_debian "$work/$name.tar" '' ;;
      python) make_python "$work/$name.tar" ;;
    esac
    printf '%s\n' "ENV $default_path" "${changes[@]}" > "${tar_file%.tar}.changes"
    chmod 644 "$work/$name.tar" "${tar_file%.tar}.changes"
    mv "$work/$name.tar" "$tar_file"
    say "made $tar_file ($(du -h "$tar_file" | cut -f 1))"
  else
    say "using $tar_file"
  fi
  if [ "$import" = yes ]; then
    [ -n "$kiln" ] || kiln=$(find_kiln) || die "no kiln binary: build it first (cargo build --release), or give --kiln"
    # The platforms of an image go under one name.
    [ "$name" != busybox-arm64 ] || reference=busybox:latest
    say "importing $reference ${platform[*]}"
    options=()
    while read -r change; do options+=(--change "$change"); done < "${tar_file%.tar}.changes"
    "$kiln" "${root_option[@]}" import "${platform[@]}" "${options[@]}" "$tar_file" "$reference"
  fi
done
