// SPDX-License-Identifier: BSD-2-Clause
/*
 * Inside a guest: start another kernel from the running one, without any firmware or machine reset in between.
 *
 *   kexec KERNEL INITRD COMMAND-LINE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	if (argc != 4) {
		fprintf(stderr, "usage: kexec KERNEL INITRD COMMAND-LINE\n");
		return 2;
	}
	int kernel = open(argv[1], O_RDONLY | O_CLOEXEC), initrd = open(argv[2], O_RDONLY | O_CLOEXEC);

	if (kernel < 0 || initrd < 0 || syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], 0ul) != 0) {
		perror("kexec");
		return 1;
	}
	sync();
	reboot((int)LINUX_REBOOT_CMD_KEXEC);
	perror("kexec");
	return 1;
}
