#!/usr/bin/env bash
# systemd 252 (Debian 12): in a unit with its own mount namespace, commands of ExecReload= cannot read the unit's credentials.
#
# Guess before it was run: every command of a unit with LoadCredential= sees the same $CREDENTIALS_DIRECTORY, so
# ExecReload= may check a configuration that names secrets there before it signals the process.
# Seen: with PrivateTmp=yes (any other option that makes a namespace does, too) the variable names the directory at the
# reload, and the secret is not there, while the main process goes on reading it. Without such an option it is there. A
# hardened unit that checks before it signals can never be reloaded.
#
# Boots the machine's systemd in namespaces of its own, on a copy-on-write view of its files. Needs root, and systemd 252.
set -euo pipefail
if [ "${1-}" != inside ]; then
	[ "$(systemctl --version | awk 'NR == 1 {print $2}')" = 252 ] || { echo "needs systemd 252" >&2; exit 1; }
	dir=$(mktemp -d)
	cgroup=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)/finding.$$
	mkdir "$cgroup"
	trap 'echo 1 >"$cgroup/cgroup.kill"; sleep 1; find "$cgroup" -depth -type d -exec rmdir {} +; rm -rf "$dir"' EXIT
	sh -c 'echo $$ >"$0/cgroup.procs"; exec unshare -mpuinC --fork "$@"' "$cgroup" "$0" inside "$dir" >"$dir/log" 2>&1 &
	disown
	for _ in $(seq 60); do
		[ -e "$dir/done" ] && break
		sleep 1
	done
	seen=$(cat "$dir/start" "$dir/reload") || { cat "$dir/log" >&2; exit 1; }
	printf '%s\n' "$seen"
	[ "$seen" = "ExecStart: /run/credentials/finding.service: the secret
ExecReload: /run/credentials/finding.service: no secret" ] || { echo "systemd behaves otherwise now" >&2; exit 1; }
	exit
fi

out=$2
mount --make-rprivate /
mkdir "$out/view"
mount -t tmpfs tmpfs "$out/view"
cd "$out/view"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for fresh in run tmp dev/shm; do mount -t tmpfs tmpfs "$fresh"; done
mkdir finding run/old
mount --bind "$out" finding
echo "the secret" >etc/finding-secret
cat >etc/systemd/system/finding.service <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=exec
PrivateTmp=yes
LoadCredential=secret:/etc/finding-secret
ExecStart=/bin/sh -c 'echo "ExecStart: $CREDENTIALS_DIRECTORY: $(cat %d/secret || echo no secret)" >/finding/start; exec sleep 1000'
ExecReload=/bin/sh -c 'echo "ExecReload: $CREDENTIALS_DIRECTORY: $(cat %d/secret || echo no secret)" >/finding/reload'
UNIT
cat >etc/systemd/system/drive.service <<'UNIT'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'systemctl start finding; until [ -s /finding/start ]; do sleep 0.1; done; systemctl reload finding; touch /finding/done'
UNIT
pivot_root . run/old
mount --make-rshared /
umount -l /run/old
exec chroot . env -i container=finding /lib/systemd/systemd --system --unit=drive.service --log-target=console
