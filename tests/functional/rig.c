// SPDX-License-Identifier: BSD-2-Clause
/*
 * Server process, checks, and helpers of the scenarios.
 */
#include "rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "drive/virtqueue_impl.h"

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
	char text[RIG_DEVICES * 2][512];
	const char *argv[12 + RIG_DEVICES * 4];
	unsigned n = 0;

	argv[n++] = scenario.program;
	argv[n++] = "serve";
	for (unsigned i = 0; i < rig->device_count; i++) {
		struct rig_device *device = &rig->devices[i];
		const char *comma = *device->options ? "," : "";
		snprintf(text[2 * i], sizeof text[0], "blk,id=d%u,poll=%s%s%s%s%s%s", i, scenario.polling ? "1s" : "0",
			 scenario.lenient ? ",bus-master=lenient" : "", *device->image ? ",path=" : "", device->image, comma, device->options);
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

struct drive_blk_options rig_blk_options(void)
{
	return (struct drive_blk_options){
		.packed = scenario.packed,
		.in_order = scenario.in_order,
		.io_fds = scenario.kick_by_fd,
		.irq = DRIVE_IRQ_MSIX,
		.table = scenario.table_in_bar ? DRIVE_TABLE_IN_BAR : DRIVE_TABLE_EMULATED,
		.buffer_size = 16384,
	};
}

static struct {
	const struct drive_blk *blk;
	uint64_t features;
} negotiated[RIG_DEVICES];

static void remember_features(const struct drive_blk *blk)
{
	unsigned i = 0;

	while (i < RIG_DEVICES - 1 && negotiated[i].blk && negotiated[i].blk != blk)
		i++;
	negotiated[i].blk = blk;
	negotiated[i].features = blk->virtio.features;
}

static uint64_t features_of(const struct drive_blk *blk)
{
	if (blk->virtio.features)
		return blk->virtio.features;
	for (unsigned i = 0; i < RIG_DEVICES; i++)
		if (negotiated[i].blk == blk)
			return negotiated[i].features;
	fail("the features of a driver are not known");
}

struct drive_blk *rig_open(struct drive_client *client, const struct drive_blk_options *options)
{
	struct drive_blk *blk;

	must(drive_blk_open(&blk, client, options, &err));
	check(blk->queues[0].ring.o.packed == options->packed, "the device does not have the ring format asked for");
	check(!options->io_fds || !blk->virtio.kicks[0].is_socket, "the server gives no descriptor for kicks");
	remember_features(blk);
	return blk;
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

/* ---- guest memory ---- */

struct picture picture_take(const struct drive_memory *memory)
{
	struct picture p = { .bytes = malloc(memory->size), .memory = memory };
	check(p.bytes, "no memory for a picture of the guest's memory");
	memcpy(p.bytes, memory->host, memory->size);
	return p;
}

void picture_restore(const struct picture *p)
{
	memcpy(p->memory->host, p->bytes, p->memory->size);
	atomic_thread_fence(memory_order_seq_cst);
}

int64_t picture_compare(const struct picture *p)
{
	if (!memcmp(p->bytes, p->memory->host, p->memory->size))
		return -1;
	for (uint64_t i = 0; i < p->memory->size; i++)
		if (p->bytes[i] != ((volatile uint8_t *)p->memory->host)[i])
			return (int64_t)i;
	return -1;
}

void picture_free(struct picture *p)
{
	free(p->bytes);
	p->bytes = NULL;
}

/* ---- the driver ---- */

int64_t await_interrupt(struct drive_blk *blk, unsigned queue, const char *what)
{
	int64_t n = drive_pci_wait_vector(blk->pci, blk->queues[queue].vector, min_of(PATIENCE_MS, 10000), &err);
	must(n);
	check(n, "no interrupt: %s", what);
	return n;
}

bool no_interrupt(struct drive_blk *blk, unsigned queue, int ms)
{
	int64_t n = drive_pci_wait_vector(blk->pci, blk->queues[queue].vector, ms, &err);
	must(n);
	return !n;
}

void kick_always(struct drive_blk *blk, unsigned queue)
{
	must(drive_virtio_notify(&blk->virtio, queue, &err));
}

void put(struct drive_blk *blk, unsigned queue, unsigned slot, uint32_t type, uint64_t sector, uint32_t bytes)
{
	must(drive_blk_submit(blk, queue, slot, type, sector, bytes));
	drive_queue_publish(&blk->queues[queue].ring);
	kick_always(blk, queue);
}

void collect(struct drive_blk *blk, unsigned queue, unsigned count, const char *what)
{
	double end = now_ms() + PATIENCE_MS;
	struct drive_blk_done done[64];

	for (unsigned got = 0; got < count;) {
		int n = drive_blk_poll(blk, queue, done, 64);
		check(n >= 0, "%s: the device completed something that was not outstanding", what);
		for (int i = 0; i < n; i++)
			check(done[i].status == VIRTIO_BLK_S_OK, "%s: request %u has status %u", what, done[i].slot, done[i].status);
		got += (unsigned)n;
		check(got <= count, "%s: %u completions instead of %u", what, got, count);
		if (n)
			continue;
		check(now_ms() < end, "%s: %u of %u requests were not completed", what, count - got, count);
		if (blk->o.memory_by_message)
			must(drive_client_serve(blk->client, 1, &err));
		else
			sleep_ms(0.1);
	}
}

void one_read(struct drive_blk *blk, uint64_t sector, uint32_t bytes, const char *what)
{
	put(blk, 0, 0, VIRTIO_BLK_T_IN, sector, bytes);
	collect(blk, 0, 1, what);
}

bool kicks_are_off(const struct drive_blk *blk, unsigned queue)
{
	const struct drive_queue *ring = &blk->queues[queue].ring;

	if (ring->o.packed)
		return (get16(&ring->device_event->flags) & 3) == VRING_PACKED_EVENT_FLAG_DISABLE;
	if (ring->o.event_idx)
		return get16(&ring->used->ring[ring->o.size]) != ring->published;
	return get16(&ring->used->flags) & VRING_USED_F_NO_NOTIFY;
}

void warm_up(struct drive_blk *blk, unsigned queue)
{
	double end = now_ms() + PATIENCE_MS;

	if (!scenario.polling) {
		while (kicks_are_off(blk, queue)) {
			check(now_ms() < end, "the server does not stop polling");
			sleep_ms(1);
		}
		return;
	}
	/* Each look within a second of the last work makes it poll twice as long, up to that second. */
	for (;;) {
		put(blk, queue, 0, VIRTIO_BLK_T_IN, 0, 4096);
		for (unsigned i = 0; i < 40 && !(i > 20 && kicks_are_off(blk, queue)); i++) {
			kick_always(blk, queue);
			sleep_ms(3);
		}
		collect(blk, queue, 1, "warming up");
		put(blk, queue, 0, VIRTIO_BLK_T_IN, 0, 4096);
		sleep_ms(30);
		bool polls = kicks_are_off(blk, queue);
		collect(blk, queue, 1, "warming up");
		if (polls)
			return;
		check(now_ms() < end, "the server does not begin to poll");
	}
}

void fill_with_garbage(struct drive_blk *blk)
{
	struct drive_memory *memory = blk->memory;
	uint64_t state = scenario.seed * 2 + 1;

	for (uint64_t i = 0; i < memory->size; i += 8) {
		uint64_t word = random_next(&state);
		memcpy(memory->host + i, &word, 8);
	}
	for (unsigned q = 0; q < blk->queue_count; q++) {
		struct drive_queue *ring = &blk->queues[q].ring;
		if (!ring->o.packed) {
			put16(&ring->avail->idx, (uint16_t)(ring->next + 0x4000));
			continue;
		}
		/* Available at every position, in this round and in the next. */
		for (unsigned i = 0; i < ring->o.size; i++) {
			bool wrap = i >= ring->next ? ring->wrap : !ring->wrap;
			put16(&ring->packed[i].flags, (uint16_t)(VRING_DESC_F_NEXT | (wrap ? 1u << VRING_PACKED_DESC_F_AVAIL :
											      1u << VRING_PACKED_DESC_F_USED)));
		}
	}
	atomic_thread_fence(memory_order_seq_cst);
}

void count_interrupts(struct drive_blk *blk, const char *when)
{
	for (unsigned i = 0; i < 5; i++) {
		check(drive_queue_arm(&blk->queues[0].ring), "%s: something is in the used ring already", when);
		put(blk, 0, 0, VIRTIO_BLK_T_IN, 8 * i, 4096);
		int64_t n = await_interrupt(blk, 0, when);
		check(n == 1, "%s: %lld interrupts instead of one", when, (long long)n);
		collect(blk, 0, 1, when);
	}
	check(no_interrupt(blk, 0, 5), "%s: one more interrupt than requests", when);
}

uint8_t status_of(struct drive_blk *blk)
{
	uint8_t status;
	must(drive_virtio_status(&blk->virtio, &status, &err));
	return status;
}

void check_healthy(struct drive_blk *blk, const char *when)
{
	uint8_t status = status_of(blk);
	check(!(status & VIRTIO_CONFIG_S_NEEDS_RESET), "the device needs a reset: %s", when);
	check(status & VIRTIO_CONFIG_S_DRIVER_OK, "DRIVER_OK is gone: %s (status %#x)", when, status);
}

void restart_keeping_triggers(struct drive_blk *blk, bool bus_master)
{
	struct drive_pci *pci = blk->pci;
	/* A reset by status makes the driver forget them. */
	uint64_t features = features_of(blk);

	must(drive_pci_assign_bars(pci, 0xe0000000u, UINT64_C(1) << 40, &err));
	must(drive_virtio_negotiate(&blk->virtio, features, &err));
	if (blk->o.irq == DRIVE_IRQ_MSIX) {
		must(drive_pci_config_update(pci, pci->msix + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_MASKALL, PCI_MSIX_FLAGS_ENABLE, &err));
		for (unsigned i = 0; pci->table == DRIVE_TABLE_IN_BAR && i < pci->vector_count; i++)
			must(drive_pci_write_entry(pci, i, 0xfee00000u, i, false, &err));
		must(drive_virtio_config_vector(&blk->virtio, 0, &err));
	}
	for (unsigned i = 0; i < blk->queue_count; i++) {
		drive_queue_restart(&blk->queues[i].ring);
		for (unsigned s = 0; s < blk->o.depth; s++)
			blk->queues[i].slots[s].busy = false;
		must(drive_virtio_queue_setup(&blk->virtio, i, &blk->queues[i].ring,
					      blk->o.irq == DRIVE_IRQ_MSIX ? (uint16_t)blk->queues[i].vector : VIRTIO_MSI_NO_VECTOR, &err));
	}
	if (bus_master)
		must(drive_pci_bus_master(pci, true, &err));
	must(drive_virtio_driver_ok(&blk->virtio, &err));
}
