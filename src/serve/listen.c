// SPDX-License-Identifier: BSD-2-Clause
/*
 * Listening sockets. A stale file of a socket nobody listens on is replaced; one that is in use, or that is no socket, is not touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/error.h"
#include "serve/listen.h"

#define BACKLOG 16

int serve_listen_check(const struct serve_socket *at, struct pintle_error *err)
{
	int fd = at->fd;
	int listening = 0, domain = 0;
	socklen_t length = sizeof listening;

	if (at->path)
		return 0;
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0)
		return error_errno(err, -errno, "descriptor %d is no socket; fd= names a listening one that whoever started this has passed", fd);
	length = sizeof domain;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 || domain != AF_UNIX || !listening)
		return error_set(err, -EINVAL, "descriptor %d is no listening UNIX socket", fd);
	return 0;
}

static int take_over(int fd, struct pintle_error *err)
{
	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		return error_errno(err, -errno, "cannot set descriptor %d up", fd);
	return fd;
}

/* Is somebody listening there? */
static int probe(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int result = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 ? -errno : 0;
	close(fd);
	return result;
}

static int remove_stale(const struct sockaddr_un *address, struct pintle_error *err)
{
	struct stat st;

	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : error_errno(err, -errno, "cannot look at %s", address->sun_path);
	if (!S_ISSOCK(st.st_mode))
		return error_set(err, -EEXIST, "%s exists and is no socket; it is left alone", address->sun_path);
	if (probe(address) != -ECONNREFUSED)
		return error_set(err, -EADDRINUSE, "somebody listens on %s already", address->sun_path);
	if (unlink(address->sun_path) < 0)
		return error_errno(err, -errno, "cannot remove the stale socket %s", address->sun_path);
	return 0;
}

static int number_or(const char *text, long *number)
{
	char *end;
	*number = strtol(text, &end, 10);
	return *end ? -EINVAL : 0;
}

static int set_owner(const struct serve_socket *at, struct pintle_error *err)
{
	long uid = -1, gid = -1;

	if (at->owner && number_or(at->owner, &uid) < 0) {
		const struct passwd *user = getpwnam(at->owner);
		if (!user)
			return error_set(err, -ENOENT, "there is no user %s to own %s", at->owner, at->path);
		uid = user->pw_uid;
	}
	if (at->group && number_or(at->group, &gid) < 0) {
		const struct group *group = getgrnam(at->group);
		if (!group)
			return error_set(err, -ENOENT, "there is no group %s to own %s", at->group, at->path);
		gid = group->gr_gid;
	}
	if ((at->owner || at->group) && chown(at->path, (uid_t)uid, (gid_t)gid) < 0)
		return error_errno(err, -errno, "cannot give %s to %s:%s", at->path, at->owner ? at->owner : "", at->group ? at->group : "");
	return 0;
}

static int make(const struct serve_socket *at, struct pintle_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(at->path) >= sizeof address.sun_path)
		return error_set(err, -ENAMETOOLONG, "the path of a socket has at most %zu bytes: %s", sizeof address.sun_path - 1, at->path);
	memcpy(address.sun_path, at->path, strlen(at->path) + 1);
	int result = remove_stale(&address, err);
	if (result < 0)
		return result;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make a socket");
	/* Nobody gets in between bind and chmod: the file is born with no permissions. */
	mode_t mask = umask(0777);
	result = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
	umask(mask);
	if (result < 0) {
		error_errno(err, result, "cannot make the socket %s (does its folder exist, and may this user write there?)", at->path);
		goto close_fd;
	}
	result = set_owner(at, err);
	if (result < 0)
		goto unlink_path;
	if (chmod(at->path, at->mode) < 0 || listen(fd, BACKLOG) < 0) {
		result = error_errno(err, -errno, "cannot listen on %s", at->path);
		goto unlink_path;
	}
	return fd;

unlink_path:
	unlink(at->path);
close_fd:
	close(fd);
	return result;
}

int serve_listen(const struct serve_socket *at, struct pintle_error *err)
{
	return at->path ? make(at, err) : take_over(at->fd, err);
}

void serve_unlisten(const struct serve_socket *at)
{
	if (at->path)
		unlink(at->path);
}
