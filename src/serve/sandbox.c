// SPDX-License-Identifier: BSD-2-Clause
/*
 * The seccomp filter. What it does not name fails with EPERM instead of killing the process: one call of a library that was not foreseen must not
 * take every device of the process away. Descriptors of images, sockets and eventfds are there by now or come with messages.
 */
#include <errno.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/error.h"
#include "base/num.h"
#include "host/function.h"
#include "serve/sandbox.h"

static const int allowed[] = {
	/* I/O on descriptors that are open */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv),
	SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(sendto), SCMP_SYS(recvfrom),
	SCMP_SYS(accept4), SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(fcntl), SCMP_SYS(lseek), SCMP_SYS(fstat), SCMP_SYS(fstatfs),
	SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(fallocate), SCMP_SYS(sync_file_range), SCMP_SYS(getsockopt), SCMP_SYS(shutdown),
	SCMP_SYS(io_setup), SCMP_SYS(io_submit), SCMP_SYS(io_getevents), SCMP_SYS(io_destroy), SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
	SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(unlink), SCMP_SYS(unlinkat),
	/* waiting */
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(eventfd2),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(futex), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime),
	SCMP_SYS(gettimeofday), SCMP_SYS(sched_yield), SCMP_SYS(restart_syscall),
	/* memory; never executable, see below */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(membarrier), SCMP_SYS(mincore),
	/* threads and their end */
	SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(sigaltstack),
	SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(tgkill), SCMP_SYS(getrusage), SCMP_SYS(prctl),
	SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_setaffinity), SCMP_SYS(getrandom), SCMP_SYS(getrlimit), SCMP_SYS(prlimit64), SCMP_SYS(uname),
	SCMP_SYS(sysinfo), SCMP_SYS(get_robust_list), SCMP_SYS(set_tid_address),
};

/* Test builds: at the end the leak checker starts a process that traces this one, and reads /proc. */
static int allow_leak_checker(scmp_filter_ctx filter)
{
	int result = 0;
#ifdef __SANITIZE_ADDRESS__
	static const int needed[] = {
		SCMP_SYS(ptrace), SCMP_SYS(clone), SCMP_SYS(wait4), SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(getdents), SCMP_SYS(getdents64),
		SCMP_SYS(getppid), SCMP_SYS(kill), SCMP_SYS(process_vm_readv), SCMP_SYS(ioctl), SCMP_SYS(pipe2), SCMP_SYS(pipe), SCMP_SYS(stat),
	};
	for (size_t i = 0; !result && i < ARRAY_SIZE(needed); i++)
		result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, needed[i], 0);
#else
	(void)filter;
#endif
	return result;
}

/* What block devices are asked and told. */
static const unsigned long ioctls[] = { BLKGETSIZE64, BLKSSZGET, BLKPBSZGET, BLKDISCARD, BLKZEROOUT, BLKROGET, BLKIOMIN, BLKIOOPT };

/* What some kinds of devices need beside that. */
static const int vfio_calls[] = { SCMP_SYS(pidfd_open), -1 }; /* on kernels without SO_PEERPIDFD */
static const int xen_calls[] = { SCMP_SYS(symlinkat), -1 }; /* where assignable devices are shown, by its descriptor (host/assignable.h) */
static const struct {
	unsigned need;
	const int *calls; /* up to -1 */
	const unsigned long *ioctls; /* up to 0 */
} needs_table[] = {
	{ SANDBOX_VFIO, vfio_calls, host_ioctls },
	{ SANDBOX_XEN, xen_calls, sandbox_xen_ioctls },
};

static int add_needs(scmp_filter_ctx filter, unsigned needs)
{
	int result = 0;

	for (size_t n = 0; n < ARRAY_SIZE(needs_table); n++) {
		if (!(needs & needs_table[n].need))
			continue;
		for (size_t i = 0; !result && needs_table[n].calls[i] != -1; i++)
			result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, needs_table[n].calls[i], 0);
		for (size_t i = 0; !result && needs_table[n].ioctls[i]; i++)
			result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, needs_table[n].ioctls[i]));
	}
	return result;
}

static int add_rules(scmp_filter_ctx filter, unsigned needs)
{
	int result = 0;

	for (size_t i = 0; !result && i < ARRAY_SIZE(allowed); i++)
		result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
	if (!result)
		result = allow_leak_checker(filter);
	for (size_t i = 0; !result && i < ARRAY_SIZE(ioctls); i++)
		result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, ioctls[i]));
	if (!result)
		result = add_needs(filter, needs);
	if (!result)
		result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!result)
		result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Threads, not processes: clone3 hides its flags behind a pointer, so the C library is sent back to clone. */
	if (!result)
		result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	if (!result)
		result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	return result;
}

int serve_sandbox(unsigned needs, struct pintle_error *err)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!filter)
		return error_set(err, -ENOMEM, "no memory for the seccomp filter");
	int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	/* The kernel's log then has a line for each call that was refused: for whoever looks for what is missing here. */
	if (!result && getenv("PINTLE_SANDBOX_LOG"))
		result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);
	if (!result)
		result = add_rules(filter, needs);
	if (!result)
		result = seccomp_load(filter);
	seccomp_release(filter);
	if (result < 0)
		return error_errno(err, result, "cannot confine the process with seccomp (sandbox=off does without)");
	return 0;
}
