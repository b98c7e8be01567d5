// SPDX-License-Identifier: BSD-2-Clause
/*
 * The server process, checks, and what can be seen from outside.
 */
#include "rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct scenario_options scenario;
struct pintle_error err;
static struct rig *running;

/* ---- time ---- */

double now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

void sleep_ms(double ms)
{
	struct timespec ts = { .tv_sec = (time_t)(ms / 1e3), .tv_nsec = (long)((ms - (double)(long)(ms / 1e3) * 1e3) * 1e6) };
	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state * UINT64_C(0x2545f4914f6cdd1d);
}

/* ---- failing ---- */

static void print_log(const struct rig *rig)
{
	char line[512];
	FILE *log = fopen(rig->log, "r");

	if (!log)
		return;
	fseek(log, 0, SEEK_END);
	long size = ftell(log);
	fseek(log, size > 6000 ? size - 6000 : 0, SEEK_SET);
	while (fgets(line, sizeof line, log))
		fprintf(stderr, "  server: %s", line);
	fclose(log);
}

static void clean_up(struct rig *rig)
{
	for (unsigned i = 0; i < rig->device_count; i++) {
		unlink(rig->devices[i].image);
		unlink(rig->devices[i].socket);
	}
	/* Of a server that was killed, and of a scenario that was ended. */
	char path[96];
	snprintf(path, sizeof path, "%s/control", rig->folder);
	unlink(path);
	snprintf(path, sizeof path, "%s/script", rig->folder);
	unlink(path);
	unlink(rig->log);
	rmdir(rig->folder);
}

static void say_how_it_ended(int status)
{
	if (WIFSIGNALED(status))
		fprintf(stderr, "SERVER ENDED: signal %d\n", WTERMSIG(status));
	else
		fprintf(stderr, "SERVER ENDED: exit status %d\n", WEXITSTATUS(status));
}

static void leave(int status)
{
	struct rig *rig = running;
	int how;

	if (rig) {
		running = NULL;
		/* A server that is dying may not be dead when its client finds out. */
		for (int i = 0; rig->pid > 0 && i < (status == STATUS_FAILED ? 20 : 1); i++) {
			if (waitpid(rig->pid, &how, WNOHANG) == rig->pid) {
				say_how_it_ended(how);
				rig->pid = 0;
			} else if (i) {
				sleep_ms(10);
			}
		}
		if (rig->pid > 0) {
			kill(rig->pid, SIGKILL);
			waitpid(rig->pid, &how, 0);
		}
		if (status == STATUS_FAILED)
			print_log(rig);
		clean_up(rig);
	}
	fflush(NULL);
	_exit(status);
}

void failed(const char *file, int line, const char *format, ...)
{
	va_list arguments;

	fputs("FAILED: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	const char *name = strrchr(file, '/');
	fprintf(stderr, " [%s:%d]\n", name ? name + 1 : file, line);
	leave(STATUS_FAILED);
	abort();
}

void skipped(const char *format, ...)
{
	va_list arguments;

	fputs("SKIPPED: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	leave(STATUS_SKIPPED);
	abort();
}

void note(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
}

/* ---- the server ---- */

unsigned rig_device(struct rig *rig, uint64_t image_size, const char *format, ...)
{
	struct rig_device *device = &rig->devices[rig->device_count];

	device->image_size = image_size;
	if (format) {
		va_list arguments;
		va_start(arguments, format);
		vsnprintf(device->options, sizeof device->options, format, arguments);
		va_end(arguments);
	}
	return rig->device_count++;
}

static void make_files(struct rig *rig)
{
	snprintf(rig->folder, sizeof rig->folder, "%s/pintle-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	check(mkdtemp(rig->folder), "cannot make a folder: %s", strerror(errno));
	snprintf(rig->log, sizeof rig->log, "%s/log", rig->folder);
	for (unsigned i = 0; i < rig->device_count; i++) {
		struct rig_device *device = &rig->devices[i];
		snprintf(device->socket, sizeof device->socket, "%s/s%u", rig->folder, i);
		if (!device->image_size)
			continue;
		snprintf(device->image, sizeof device->image, "%s/disk%u", rig->folder, i);
		int fd = open(device->image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		check(fd >= 0 && !ftruncate(fd, (off_t)device->image_size), "cannot make an image: %s", strerror(errno));
		close(fd);
	}
}

static void exec_server(struct rig *rig)
{
	char text[RIG_DEVICES * 2][512], control[96];
	const char *argv[12 + RIG_DEVICES * 4];
	unsigned n = 0;
	char io_threads[16];

	argv[n++] = scenario.program;
	argv[n++] = "serve";
	snprintf(control, sizeof control, "path=%s/control", rig->folder);
	argv[n++] = "--control";
	argv[n++] = control;
	snprintf(io_threads, sizeof io_threads, "%u", rig->io_threads);
	if (rig->io_threads) {
		argv[n++] = "--io-threads";
		argv[n++] = io_threads;
	}
	for (unsigned i = 0; i < rig->device_count; i++) {
		struct rig_device *device = &rig->devices[i];
		const char *comma = *device->options ? "," : "";
		snprintf(text[2 * i], sizeof text[0], "blk,id=d%u,poll=%s%s%s%s%s%s%s", i, scenario.polling ? "1s" : "0",
			 scenario.lenient ? ",bus-master=lenient" : "", scenario.in_order ? ",in-order=on" : "", *device->image ? ",path=" : "", device->image, comma, device->options);
		snprintf(text[2 * i + 1], sizeof text[0], "vfio-user,path=%s", device->socket);
		argv[n++] = "--device";
		argv[n++] = text[2 * i];
		argv[n++] = "--road";
		argv[n++] = text[2 * i + 1];
	}
	argv[n] = NULL;
	int log = open(rig->log, O_WRONLY | O_CREAT | O_APPEND, 0600);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	int null = open("/dev/null", O_RDONLY);
	dup2(null, STDIN_FILENO);
	close_range(3, ~0u, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execv(scenario.program, (char *const *)(uintptr_t)argv);
	_exit(127);
}

bool rig_logged(const struct rig *rig, const char *text)
{
	char line[1024];
	bool found = false;
	FILE *log = fopen(rig->log, "r");

	while (log && !found && fgets(line, sizeof line, log))
		found = strstr(line, text);
	if (log)
		fclose(log);
	return found;
}

void rig_start(struct rig *rig)
{
	double end = now_ms() + PATIENCE_MS;
	int status;

	make_files(rig);
	running = rig;
	rig->pid = fork();
	check(rig->pid >= 0, "cannot start a process: %s", strerror(errno));
	if (!rig->pid)
		exec_server(rig);
	while (!rig_logged(rig, "ready: ")) {
		if (waitpid(rig->pid, &status, WNOHANG) == rig->pid) {
			rig->pid = 0;
			say_how_it_ended(status);
			fail("the server does not start");
		}
		check(now_ms() < end, "the server is not ready");
		sleep_ms(2);
	}
}

uint64_t rig_taken(const struct rig *rig, const char *id, unsigned queue)
{
	char command[400];
	json_error_t where;

	snprintf(command, sizeof command, "'%s' ctl --socket '%s/control' --json show %s", scenario.program, rig->folder, id);
	FILE *pipe = popen(command, "re");
	check(pipe, "cannot run %s: %s", command, strerror(errno));
	json_t *reply = json_loadf(pipe, 0, &where);
	check(!pclose(pipe) && reply, "%s: %s", command, reply ? "failed" : where.text);
	json_t *of = json_array_get(json_object_get(json_object_get(reply, "virtio"), "queues"), queue);
	check(json_is_integer(json_object_get(of, "requests")), "%s says nothing of queue %u", command, queue);
	uint64_t count = (uint64_t)json_integer_value(json_object_get(of, "requests"));
	json_decref(reply);
	return count;
}

void rig_await_taken(const struct rig *rig, const char *id, unsigned queue, uint64_t count)
{
	double end = now_ms() + PATIENCE_MS;

	while (rig_taken(rig, id, queue) < count) {
		check(now_ms() < end, "the server does not take up what was submitted");
		sleep_ms(1);
	}
}

void rig_end(struct rig *rig)
{
	double end = now_ms() + PATIENCE_MS;
	int status;

	kill(rig->pid, SIGTERM);
	while (waitpid(rig->pid, &status, WNOHANG) != rig->pid) {
		check(now_ms() < end, "the server does not end after SIGTERM");
		sleep_ms(2);
	}
	rig->pid = 0;
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		say_how_it_ended(status);
		fail("the server did not end in order");
	}
	running = NULL;
	clean_up(rig);
}

void rig_kill(struct rig *rig)
{
	int status;

	/* It has to be alive up to here. */
	if (waitpid(rig->pid, &status, WNOHANG) == rig->pid) {
		rig->pid = 0;
		say_how_it_ended(status);
		fail("the server is gone");
	}
	kill(rig->pid, SIGKILL);
	waitpid(rig->pid, &status, 0);
	rig->pid = 0;
	running = NULL;
	clean_up(rig);
}

struct drive_client *rig_connect_as(const struct rig *rig, unsigned device, const struct drive_client_options *options)
{
	struct drive_client_options o = *options;
	struct drive_client *client;

	o.path = rig->devices[device].socket;
	must(drive_client_open(&client, &o, &err));
	return client;
}

struct drive_client *rig_connect(const struct rig *rig, unsigned device)
{
	return rig_connect_as(rig, device, &(struct drive_client_options){ 0 });
}

/* ---- from outside ---- */

/* The kernel's own io_uring workers come and go as it likes. */
static bool is_kernels(const char *path, const char *task)
{
	char name[1024], comm[32] = "";

	snprintf(name, sizeof name, "%s/%s/comm", path, task);
	FILE *file = fopen(name, "r");
	if (!file)
		return false;
	bool ours = !fgets(comm, sizeof comm, file) || strncmp(comm, "iou-", 4);
	fclose(file);
	return !ours;
}

static unsigned count_entries(const char *path)
{
	unsigned n = 0;
	const struct dirent *entry;
	DIR *folder = opendir(path);

	check(folder, "cannot look at %s", path);
	while ((entry = readdir(folder)))
		n += entry->d_name[0] != '.' && !is_kernels(path, entry->d_name);
	closedir(folder);
	return n;
}

struct footprint rig_footprint(const struct rig *rig)
{
	struct footprint f = { 0 };
	char path[64], line[512];

	snprintf(path, sizeof path, "/proc/%d/fd", rig->pid);
	f.descriptors = count_entries(path);
	snprintf(path, sizeof path, "/proc/%d/task", rig->pid);
	f.threads = count_entries(path);
	snprintf(path, sizeof path, "/proc/%d/maps", rig->pid);
	FILE *maps = fopen(path, "r");
	check(maps, "cannot look at %s", path);
	while (fgets(line, sizeof line, maps))
		f.guest_maps += strstr(line, "memfd:guest") != NULL;
	fclose(maps);
	return f;
}

void image_fill(const char *path, uint64_t offset, uint64_t length, uint8_t byte)
{
	uint8_t *bytes = malloc(length);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	memset(bytes, byte, length);
	check(fd >= 0 && pwrite(fd, bytes, length, (off_t)offset) == (ssize_t)length, "cannot write to the image: %s", strerror(errno));
	close(fd);
	free(bytes);
}

bool image_is(const char *path, uint64_t offset, uint64_t length, uint8_t byte)
{
	uint8_t *bytes = malloc(length);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool same = true;

	check(fd >= 0 && pread(fd, bytes, length, (off_t)offset) == (ssize_t)length, "cannot read the image: %s", strerror(errno));
	for (uint64_t i = 0; same && i < length; i++)
		same = bytes[i] == byte;
	close(fd);
	free(bytes);
	return same;
}
