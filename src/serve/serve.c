// SPDX-License-Identifier: BSD-2-Clause
/*
 * The server process: threads, devices, signals, and the order in which all of it ends.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"
#include "serve/control.h"
#include "serve/listen.h"
#include "serve/notify.h"
#include "serve/road.h"
#include "serve/sandbox.h"
#include "serve/serve.h"

/* A control thread beside the main one: its loop is made before it runs, so that devices can be set up on it from here. */
struct control_thread {
	struct loop *loop;
	pthread_t thread;
	bool started;
};

struct serve {
	struct serve_config *config;
	struct log_source log;
	struct loop *control;
	struct loop_fd signals;
	struct control_thread *owners; /* the first is the main thread's own loop */
	struct io_threads io;
	struct served_device *devices;
	size_t device_count, stopping;
	struct control *control_socket; /* NULL: none was asked for */
	bool ending;
};

static struct serve *current; /* served_device_stop's call-back has no context of its own */

static void raise_descriptor_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void device_stopped(struct served_device *device)
{
	struct serve *serve = current;
	(void)device;
	if (--serve->stopping == 0)
		loop_stop(serve->control);
}

/* A disk that never answers keeps an orderly end waiting for ever; the operator decides that it has been long enough. */
static _Noreturn void end_at_once(struct serve *serve, int signal)
{
	log_warning(&serve->log, "%s again: ending at once; what is under way is lost", strsignal(signal));
	for (size_t i = 0; i < serve->device_count; i++)
		if (serve->devices[i].config->road.kind->abandon)
			serve->devices[i].config->road.kind->abandon(&serve->devices[i].config->road);
	_exit(1); /* the control socket's file is gone since the first signal */
}

static void end(struct serve *serve, int signal)
{
	if (serve->ending)
		end_at_once(serve, signal);
	serve->ending = true;
	log_info(&serve->log, "%s: ending %zu device%s", strsignal(signal), serve->device_count, serve->device_count == 1 ? "" : "s");
	serve_notify("STOPPING=1");
	control_end(serve->control_socket);
	serve->stopping = serve->device_count;
	for (size_t i = 0; i < serve->device_count; i++)
		served_device_stop(&serve->devices[i], device_stopped);
}

static void on_signal(struct loop_fd *watch, uint32_t events)
{
	struct serve *serve = container_of(watch, struct serve, signals);
	struct signalfd_siginfo info;
	(void)events;

	if (read(watch->fd, &info, sizeof info) != sizeof info)
		return;
	if (info.ssi_signo != SIGHUP) {
		end(serve, (int)info.ssi_signo);
		return;
	}
	for (size_t i = 0; i < serve->device_count && !serve->ending; i++)
		served_device_refresh(&serve->devices[i]);
}

static int watch_signals(struct serve *serve, struct pintle_error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_errno(err, -errno, "cannot watch for signals");
	int result = loop_fd_add(serve->control, &serve->signals, fd, EPOLLIN, on_signal);
	if (result < 0) {
		close(fd);
		return error_errno(err, result, "cannot watch for signals");
	}
	return 0;
}

static int make_io_threads(struct serve *serve, struct pintle_error *err)
{
	unsigned count = serve->config->io_threads;

	serve->io.threads = calloc(count, sizeof(struct loop_thread *));
	serve->io.loops = calloc(count, sizeof(struct loop *));
	if (!serve->io.threads || !serve->io.loops)
		return error_set(err, -ENOMEM, "no memory for %u I/O threads", count);
	for (unsigned i = 0; i < count; i++) {
		char name[24];
		snprintf(name, sizeof name, "io%u", i);
		int result = loop_thread_start(&serve->io.threads[i], name, err);
		if (result < 0)
			return result;
		serve->io.loops[i] = loop_thread_loop(serve->io.threads[i]);
		serve->io.count++;
	}
	return 0;
}

static int make_owners(struct serve *serve, struct pintle_error *err)
{
	serve->owners = calloc(serve->config->control_threads, sizeof *serve->owners);
	if (!serve->owners)
		return error_set(err, -ENOMEM, "no memory for the control threads");
	serve->owners[0].loop = serve->control;
	for (unsigned i = 1; i < serve->config->control_threads; i++) {
		char name[24];
		snprintf(name, sizeof name, "control%u", i);
		int result = loop_create(&serve->owners[i].loop, name, err);
		if (result < 0)
			return result;
	}
	return 0;
}

static void *run_owner(void *loop)
{
	loop_run(loop);
	return NULL;
}

static int start_owners(struct serve *serve, struct pintle_error *err)
{
	for (unsigned i = 1; i < serve->config->control_threads; i++) {
		int error = pthread_create(&serve->owners[i].thread, NULL, run_owner, serve->owners[i].loop);
		if (error)
			return error_errno(err, -error, "cannot start a control thread");
		serve->owners[i].started = true;
	}
	return 0;
}

static void stop_owners(struct serve *serve)
{
	for (unsigned i = 1; serve->owners && i < serve->config->control_threads; i++) {
		if (!serve->owners[i].started)
			continue;
		loop_stop(serve->owners[i].loop);
		pthread_join(serve->owners[i].thread, NULL);
	}
}

static void stop_io_threads(struct serve *serve)
{
	for (unsigned i = 0; i < serve->io.count; i++)
		loop_thread_stop(serve->io.threads[i]);
	free(serve->io.threads);
	free(serve->io.loops);
}

/* What I/O threads and helpers have told the owners at the end. */
static void turn_owners(struct serve *serve)
{
	for (unsigned i = 0; serve->owners && i < serve->config->control_threads; i++)
		while (serve->owners[i].loop && loop_turn(serve->owners[i].loop, 0) > 0)
			;
}

static void destroy_owners(struct serve *serve)
{
	for (unsigned i = 1; serve->owners && i < serve->config->control_threads; i++)
		loop_destroy(serve->owners[i].loop);
	free(serve->owners);
}

static int make_devices(struct serve *serve, struct pintle_error *err)
{
	serve->devices = calloc(serve->config->device_count, sizeof *serve->devices);
	if (!serve->devices)
		return error_set(err, -ENOMEM, "no memory for %zu devices", serve->config->device_count);
	for (size_t i = 0; i < serve->config->device_count; i++) {
		const struct serve_device *config = &serve->config->devices[i];
		struct loop *owner = config->road.kind->shared ? serve->control : serve->owners[i % serve->config->control_threads].loop;
		serve->device_count++;
		int result = served_device_create(&serve->devices[i], config, owner, serve->control, &serve->io, (unsigned)i, err);
		if (result < 0)
			return result;
	}
	return 0;
}

/* Each road once. */
static int start_roads(const struct serve_config *config, struct pintle_error *err)
{
	for (size_t r = 0; road_kinds[r]; r++) {
		bool used = false;
		for (size_t i = 0; i < config->device_count; i++)
			used = used || config->devices[i].road.kind == road_kinds[r];
		int result = used && road_kinds[r]->start ? road_kinds[r]->start(err) : 0;
		if (result < 0)
			return result;
	}
	return 0;
}

static int check_descriptors(const struct serve_config *config, struct pintle_error *err)
{
	int result = 0;
	if (config->control.given && serve_listen_check(&config->control.socket, err) < 0)
		return error_prefix(err, "--control");
	for (size_t i = 0; !result && i < config->device_count; i++) {
		const struct serve_road *road = &config->devices[i].road;
		result = road->kind->inherited ? road->kind->inherited(road, err) : 0;
		if (result < 0)
			error_prefix(err, "device %s", config->devices[i].id);
	}
	return result;
}

static unsigned sandbox_needs(const struct serve_config *config)
{
	unsigned needs = 0;
	for (size_t i = 0; i < config->device_count; i++)
		needs |= config->devices[i].kind->sandbox;
	return needs;
}

static int set_up(struct serve *serve, struct pintle_error *err)
{
	int result = check_descriptors(serve->config, err);
	if (!result)
		result = loop_create(&serve->control, "control", err);
	if (!result)
		result = watch_signals(serve, err);
	if (!result)
		result = make_io_threads(serve, err);
	if (!result)
		result = make_owners(serve, err);
	if (!result)
		result = make_devices(serve, err);
	if (!result && serve->config->control.given)
		result = control_create(&serve->control_socket, &serve->config->control, serve->devices, serve->device_count, serve->control, err);
	if (!result)
		result = start_roads(serve->config, err);
	if (!result && serve->config->sandbox)
		result = serve_sandbox(sandbox_needs(serve->config), err);
	if (!result)
		result = start_owners(serve, err);
	return result;
}

static void tear_down(struct serve *serve)
{
	serve->ending = true;
	stop_owners(serve);
	helper_drain();
	/* Devices need their I/O threads to end: queues are stopped there. */
	for (size_t i = serve->device_count; i-- > 0;)
		served_device_destroy(&serve->devices[i]);
	stop_io_threads(serve);
	turn_owners(serve);
	helper_drain();
	free(serve->devices);
	control_destroy(serve->control_socket);
	destroy_owners(serve);
	if (serve->signals.loop) {
		int fd = serve->signals.fd;
		loop_fd_remove(&serve->signals);
		close(fd);
	}
	loop_destroy(serve->control);
}

int serve_run(struct serve_config *config, struct pintle_error *err)
{
	struct serve serve = { .config = config };

	current = &serve;
	log_source_init(&serve.log, "serve");
	raise_descriptor_limit();
	serve_notify_open();
	int result = set_up(&serve, err);
	if (!result) {
		log_info(&serve.log, "ready: %zu device%s", serve.device_count, serve.device_count == 1 ? "" : "s");
		serve_notify("READY=1");
		loop_run(serve.control);
	}
	tear_down(&serve);
	if (!result)
		log_info(&serve.log, "ended in order");
	current = NULL;
	return result;
}
