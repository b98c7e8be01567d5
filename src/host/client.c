// SPDX-License-Identifier: BSD-2-Clause
/*
 * The client's process, where it is given the device's descriptor (device-fd). Closing the connection takes nothing from it: only its end does, so that a handover waits for that.
 *
 * The process is the one that connected. Whoever passes the descriptor on to others has decided to trust them as well.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/private.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

static int open_pidfd(int socket, int pid)
{
	int pidfd;
	socklen_t length = sizeof pidfd;

	if (!getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &length))
		return pidfd;
	return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

void host_client_arrived(struct host_function *host, int socket)
{
	struct ucred peer = { 0 };
	socklen_t length = sizeof peer;

	if (host->bars != HOST_BARS_DEVICE_FD)
		return;
	host_client_forget(host);
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length))
		peer.pid = 0;
	host->client_pid = peer.pid;
	host->client_pidfd = open_pidfd(socket, peer.pid);
	/* -1 here would mean that nobody has the device: where nothing is known of the process, it is never known to be dead. */
	if (host->client_pidfd < 0)
		host->client_pidfd = errno == ESRCH ? -1 : HOST_CLIENT_UNKNOWN;
}

void host_client_forget(struct host_function *host)
{
	if (host->client_watch.loop)
		loop_fd_remove(&host->client_watch);
	if (host->client_pidfd >= 0)
		close(host->client_pidfd);
	host->client_pidfd = -1;
}

static void ended(struct loop_fd *watch, uint32_t ready)
{
	struct host_function *host = container_of(watch, struct host_function, client_watch);

	(void)ready;
	host_client_forget(host);
	host_hardware_again(host);
}

bool host_client_is_dead(struct host_function *host)
{
	struct pollfd poll_fd = { .fd = host->client_pidfd, .events = POLLIN };

	if (host->client_pidfd == -1 || host->retired)
		return true;
	if (host->client_pidfd >= 0 && poll(&poll_fd, 1, 0) > 0) {
		host_client_forget(host);
		return true;
	}
	if (host->client_watch.loop)
		return false;
	log_limited(LOG_LEVEL_WARNING, host->log, "%s: process %d, which has a descriptor of the device, lives on: nobody gets the device before it has ended",
		    host->device.address, host->client_pid);
	if (host->client_pidfd >= 0 && loop_fd_add(host->owner, &host->client_watch, host->client_pidfd, EPOLLIN, ended))
		host->client_watch.loop = NULL; /* looked at again with the next change */
	return false;
}

void host_function_retire(struct host_function *host)
{
	host->retired = true;
	host_hardware_again(host);
}
