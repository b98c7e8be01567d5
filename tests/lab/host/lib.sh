# SPDX-License-Identifier: BSD-2-Clause
# Functions for the shell of the machine that plays the host.
P=/sys/bus/pci/devices

# cfg ADDRESS OFFSET SIZE: hexadecimal value of a register of the real device, around everyone who has it.
cfg() {
	value=
	for byte in $(dd if=$P/$1/config bs=1 skip=$(($2)) count=$3 2> /dev/null | hexdump -v -e '1/1 "%02x "'); do
		value=$byte$value
	done
	echo $value
}

# setcfg ADDRESS OFFSET BYTE
setcfg() {
	printf "\\x$(printf %02x $3)" | dd of=$P/$1/config bs=1 seek=$(($2)) conv=notrunc 2> /dev/null
}

# begin COMMAND...: in the background, until it says that it is running, and a moment of that; its number is $load then, and its words go to /run/load.log.
begin() {
	rm -f /run/load.log
	"$@" > /run/load.log 2>&1 &
	load=$!
	until grep -q running /run/load.log 2> /dev/null || ! kill -0 $load 2> /dev/null; do
		usleep 20000
	done
	usleep 300000
}

# sbr PORT: a secondary bus reset that nobody announces: the bit in bridge control, and nothing saved or restored.
sbr() {
	control=0x$(cfg $1 0x3e 1)
	setcfg $1 0x3e $((control | 0x40))
	usleep 10000
	setcfg $1 0x3e $((control & ~0x40))
	usleep 100000
}
