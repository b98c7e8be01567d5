# SPDX-License-Identifier: BSD-2-Clause
# Shared by the project's shell scripts: where things are, how to complain, and how to make a folder whole or not at all.
# Source it: . "$(dirname "$(realpath "$0")")/../scripts/common.sh"

# Sourced from anywhere in the tree; this file's own folder is scripts/.
top=$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")
# What is fetched or made on the way lives here; git ignores it.
cache=$(realpath -m "${PINTLE_CACHE:-$top/.cache}")
# Administrators' programs (depmod, mkfs.ext4) are not in every user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# need_programs PROGRAM...: each must be there.
need_programs() {
	local program
	for program in "$@"; do
		command -v "$program" > /dev/null || die "the program $program is missing; run $top/scripts/deps"
	done
}

# need_space FOLDER MEGABYTES: the file system of FOLDER must have that much left.
need_space() {
	local free
	mkdir -p "$1" 2> /dev/null || die "cannot make the folder $1: no right to write there (PINTLE_CACHE chooses another place)"
	[ -w "$1" ] || die "no right to write in $1 (PINTLE_CACHE chooses another place)"
	free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$2" ] || die "$2 MB are needed in $1, and only $free MB are free (PINTLE_CACHE chooses another place)"
}

# make_whole TARGET MEGABYTES FUNCTION [ARGUMENT...]: make the folder TARGET by calling FUNCTION PARTIAL ARGUMENT...,
# under a lock, in a folder beside it that gets its name only when the function has succeeded. To be called plainly, under
# "set -e": bash forgets that inside of conditions, and would go on after a failure.
make_whole() {
	local target=$1 megabytes=$2 maker=$3 partial=$1.partial
	shift 3
	[ ! -d "$target" ] || return 0
	need_space "$(dirname "$target")" "$megabytes"
	(
		flock 9
		[ ! -d "$target" ] || exit 0
		trap 'rm -rf "$partial"' EXIT
		rm -rf "$partial"
		mkdir "$partial"
		"$maker" "$partial" "$@"
		mv "$partial" "$target"
	) 9> "$target.lock"
}
