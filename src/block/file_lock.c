// SPDX-License-Identifier: BSD-2-Clause
/*
 * Locks on images, which exclude each other with those of QEMU.
 *
 * QEMU's convention for raw files: a user holds a read lock on byte 100 + n for each permission n that it uses, and on byte 200 + n for each that it
 * does not share with others. It then looks whether anyone holds the opposite of its own. Only read locks are taken, so the order among users
 * decides nothing but who is refused.
 */
#include <errno.h>
#include <fcntl.h>

#include "base/num.h"
#include "block/file.h"

#define PERMISSION_BASE 100
#define UNSHARED_BASE 200

enum permission {
	CONSISTENT_READ = 1 << 0,
	WRITE = 1 << 1,
	WRITE_UNCHANGED = 1 << 2,
	RESIZE = 1 << 3,
};
#define PERMISSIONS 4

static int lock_bytes(int fd, short type, off_t base, unsigned permissions)
{
	for (unsigned n = 0; n < PERMISSIONS; n++) {
		struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = base + n, .l_len = 1 };

		if (permissions & 1u << n && fcntl(fd, F_OFD_SETLK, &lock))
			return -errno;
	}
	return 0;
}

/* Does another description hold any of these bytes? Asked as if for writing, which conflicts with every lock. */
static int look(int fd, off_t base, unsigned permissions)
{
	for (unsigned n = 0; n < PERMISSIONS; n++) {
		struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + n, .l_len = 1 };

		if (!(permissions & 1u << n))
			continue;
		if (fcntl(fd, F_OFD_GETLK, &lock))
			return -errno;
		if (lock.l_type != F_UNLCK)
			return -EAGAIN;
	}
	return 0;
}

int file_lock(int fd, bool writable)
{
	/* As a disk of a virtual machine: others may read, but nobody may write or change the size; a copy-on-read by others changes nothing. */
	unsigned used = CONSISTENT_READ | (writable ? WRITE : 0u), unshared = WRITE | RESIZE;
	int r = lock_bytes(fd, F_RDLCK, PERMISSION_BASE, used);

	if (!r)
		r = lock_bytes(fd, F_RDLCK, UNSHARED_BASE, unshared);
	if (!r)
		r = look(fd, UNSHARED_BASE, used);
	if (!r)
		r = look(fd, PERMISSION_BASE, unshared);
	if (r)
		file_unlock(fd);
	return r;
}

void file_unlock(int fd)
{
	lock_bytes(fd, F_UNLCK, PERMISSION_BASE, (1u << PERMISSIONS) - 1);
	lock_bytes(fd, F_UNLCK, UNSHARED_BASE, (1u << PERMISSIONS) - 1);
}
