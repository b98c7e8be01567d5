// SPDX-License-Identifier: BSD-2-Clause
/*
 * Law 7: a function under load is saved, and goes on in another process; its driver does not notice.
 *
 * The driver's client is given the second server's connection under the descriptor of the first, as a VMM on the other side of a migration has it: the memory mapped and the
 * triggers bound again, and not a register written.
 */
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

/* So long a request is in the disk: a save finds many there. */
#define DISK_MS 40
#define QUEUES 2

struct place {
	char folder[64], image[96], file[96], sockets[2][96];
};

struct process {
	pid_t pid;
	FILE *in, *out;
};

static void make_place(struct place *place)
{
	snprintf(place->folder, sizeof place->folder, "%s/pintle-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	check(mkdtemp(place->folder), "cannot make a folder: %s", strerror(errno));
	snprintf(place->image, sizeof place->image, "%s/disk", place->folder);
	snprintf(place->file, sizeof place->file, "%s/state", place->folder);
	for (unsigned i = 0; i < 2; i++)
		snprintf(place->sockets[i], sizeof place->sockets[i], "%s/s%u", place->folder, i);
	int fd = open(place->image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	check(fd >= 0 && !ftruncate(fd, LOAD_IMAGE), "cannot make an image: %s", strerror(errno));
	close(fd);
}

static void remove_place(const struct place *place)
{
	unlink(place->image);
	unlink(place->file);
	for (unsigned i = 0; i < 2; i++)
		unlink(place->sockets[i]);
	rmdir(place->folder);
}

/* The server's program stands beside this one's. */
static void program_path(char *path, size_t size)
{
	const char *slash = strrchr(scenario.program, '/');
	snprintf(path, size, "%.*s/tests/functional/state_server", slash ? (int)(slash - scenario.program) : 1, slash ? scenario.program : ".");
}

static void answer(struct process *process, char *line, int size)
{
	check(fgets(line, size, process->out), "the server is gone");
	line[strcspn(line, "\n")] = 0;
}

static void start(struct process *process, const struct place *place, unsigned number)
{
	char path[512], line[400], delay[16], queues[16];
	int in[2], out[2];

	program_path(path, sizeof path);
	snprintf(delay, sizeof delay, "%d", DISK_MS);
	snprintf(queues, sizeof queues, "%d", QUEUES);
	check(!pipe2(in, O_CLOEXEC) && !pipe2(out, O_CLOEXEC), "no pipes: %s", strerror(errno));
	fflush(NULL);
	process->pid = fork();
	if (!process->pid) {
		dup2(in[0], STDIN_FILENO);
		dup2(out[1], STDOUT_FILENO);
		close_range(3, ~0u, 0);
		execl(path, path, place->sockets[number], place->image, delay, queues, scenario.in_order ? "in-order" : "plain",
		      number ? place->file : (char *)NULL, (char *)NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	process->in = fdopen(in[1], "w");
	process->out = fdopen(out[0], "r");
	answer(process, line, sizeof line);
	check(!strcmp(line, "ready"), "server %u does not start: %s", number, line);
}

static void end(struct process *process)
{
	int status = 0;

	fclose(process->in);
	waitpid(process->pid, &status, 0);
	fclose(process->out);
	check(WIFEXITED(status) && !WEXITSTATUS(status), "a server did not end in order (status %#x)", status);
}

static void ask(struct process *process, char *line, int size, const char *text, unsigned level, const char *path)
{
	if (level)
		fprintf(process->in, "%s %u %s\n", text, level, path);
	else
		fprintf(process->in, "%s\n", text);
	fflush(process->in);
	answer(process, line, size);
}

/* ---- the VMM on the other side ---- */

static void reattach(struct drive_blk *blk, const char *socket)
{
	struct drive_client *client;
	struct drive_memory *m = blk->memory;

	must(drive_client_open(&client, &(struct drive_client_options){ .path = socket }, &err));
	must(drive_client_dma_map(client, m->address, m->size, m->flags, blk->o.memory_by_message ? -1 : m->fd, m->fd_offset, &err));
	if (blk->pci->irq_mode == DRIVE_IRQ_MSIX)
		must(drive_client_set_irqs(client, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, 0,
					   blk->pci->vector_count, NULL, blk->pci->vectors, blk->pci->vector_count, &err));
	check(dup2(drive_client_fd(client), drive_client_fd(blk->client)) >= 0, "dup2: %s", strerror(errno));
	drive_client_close(client);
}

/* What a guest could read of the function: all of configuration space, the virtio registers by queue, and the MSI-X table. */
struct guest_view {
	uint8_t config[4096], common[QUEUES][64], table[16 * (QUEUES + 1)];
	size_t table_size;
};

static void take_view(struct drive_blk *blk, struct guest_view *view)
{
	struct drive_pci *pci = blk->pci;

	memset(view, 0, sizeof *view);
	must(drive_client_region_read(blk->client, VFIO_PCI_CONFIG_REGION_INDEX, 0, view->config, pci->config_size, &err));
	/* Transactions Pending tells of the moment. */
	if (pci->express)
		view->config[pci->express + PCI_EXP_DEVSTA] &= (uint8_t)~PCI_EXP_DEVSTA_TRPND;
	for (unsigned q = 0; q < QUEUES; q++) {
		uint16_t select = (uint16_t)q;
		must(drive_bar_write(pci, 4, 22, &select, 2, &err));
		must(drive_bar_read(pci, 4, 0, view->common[q], 60, &err));
	}
	if (pci->table == DRIVE_TABLE_IN_BAR && pci->irq_mode == DRIVE_IRQ_MSIX) {
		view->table_size = 16 * pci->vector_count;
		for (size_t at = 0; at < view->table_size; at += 8)
			must(drive_bar_read(pci, pci->msix_table_bar, pci->msix_table_offset + at, view->table + at, 8, &err));
	}
}

static void compare(const struct guest_view *before, const struct guest_view *after)
{
	for (size_t i = 0; i < sizeof before->config; i++)
		check(before->config[i] == after->config[i], "configuration space differs at %#zx: %02x, and was %02x", i, after->config[i], before->config[i]);
	for (unsigned q = 0; q < QUEUES; q++)
		for (size_t i = 0; i < 60; i++)
			check(before->common[q][i] == after->common[q][i], "the registers of queue %u differ at %zu: %02x, and was %02x", q, i,
			      after->common[q][i], before->common[q][i]);
	check(!memcmp(before->table, after->table, before->table_size), "the MSI-X table differs");
}

/* ---- the scenarios ---- */

static void master(struct drive_blk *blk, bool on)
{
	must(drive_pci_bus_master(blk->pci, on, &err));
}

static void run_move(bool closed, bool by_message)
{
	struct place place;
	struct process first, second;
	struct drive_client *client;
	struct drive_blk_options options = rig_blk_options();
	static struct load load;
	static struct guest_view before, after;
	char line[400];

	note("seed %llu", (unsigned long long)scenario.seed);
	make_place(&place);
	start(&first, &place, 0);
	load_init(&load, place.image, scenario.seed);
	options.queues = QUEUES;
	options.depth = 32;
	options.memory_by_message = by_message;
	must(drive_client_open(&client, &(struct drive_client_options){ .path = place.sockets[0] }, &err));
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	load_pump_for(&load, 3 * DISK_MS);
	unsigned outstanding = 0, marked = 0;
	/* On a machine that was busy elsewhere the disk may be done with all of them: then once more. */
	for (double late = now_ms() + PATIENCE_MS; (outstanding < 32 || !marked) && now_ms() < late;) {
		if (!closed)
			take_view(blk, &before);
		load_pump(&load);
		if (closed) {
			/* What is out ends while the gate is closed, some of it before the save begins. */
			master(blk, false);
			take_view(blk, &before);
		}
		ask(&first, line, sizeof line, "save", 2, place.file);
		check(!strncmp(line, "saved ", 6), "the function is not saved: %s", line);
		load_take(&load);
		outstanding = load.outstanding;
		marked = load_supersede(&load, place.image);
		note("%s, %u requests outstanding, %u of them writes that are on the disk", line, outstanding, marked);
		if (outstanding >= 32 && marked)
			break;
		char resumed[400];
		ask(&first, resumed, sizeof resumed, "resume", 0, NULL);
		if (closed)
			master(blk, true);
	}
	check(outstanding >= 32 && marked, "%u requests are outstanding, %u of them written and not reported: the save has nothing to show", outstanding, marked);
	end(&first);
	start(&second, &place, 1);
	reattach(blk, place.sockets[1]);
	take_view(blk, &after);
	compare(&before, &after);
	if (closed) {
		sleep_ms(2 * DISK_MS);
		check(!load_take(&load), "completions came although bus master is off");
		master(blk, true);
	}
	load_drain(&load, "after the move");
	load_pump_for(&load, 3 * DISK_MS);
	load_drain(&load, "at the end");
	load_verify_all(&load, "at the end");
	drive_blk_close(blk);
	drive_client_close(client);
	end(&second);
	load_verify_image(&load, place.image);
	note("%llu requests completed", (unsigned long long)load.completed);
	remove_place(&place);
}

static void state_move(void)
{
	run_move(false, false);
}

static void state_move_closed(void)
{
	run_move(true, false);
}

/* The client shares no memory: the rings are reached by message, and the queues run on a thread of the function's own, there as here. */
static void state_move_messages(void)
{
	run_move(false, true);
}

/* It is saved and goes on where it was; and an older level refuses by name a gate that it cannot express. */
static void state_resume(void)
{
	struct place place;
	struct process server;
	struct drive_client *client;
	struct drive_blk_options options = rig_blk_options();
	static struct load load;
	char line[400];

	make_place(&place);
	start(&server, &place, 0);
	load_init(&load, place.image, scenario.seed);
	options.queues = QUEUES;
	must(drive_client_open(&client, &(struct drive_client_options){ .path = place.sockets[0] }, &err));
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	load_pump_for(&load, 2 * DISK_MS);
	ask(&server, line, sizeof line, "save", 1, place.file);
	check(!strncmp(line, "saved ", 6), "with its gate open the function is not saved at level 1: %s", line);
	ask(&server, line, sizeof line, "resume", 0, NULL);
	load_drain(&load, "after the resume");
	load_pump_for(&load, 2 * DISK_MS);
	master(blk, false);
	/* What was published before that was answered. */
	load_take(&load);
	ask(&server, line, sizeof line, "save", 1, place.file);
	check(strstr(line, "refused: ") && strstr(line, "\"gate\""), "level 1 does not refuse a closed gate by name: %s", line);
	ask(&server, line, sizeof line, "resume", 0, NULL);
	check(!load_take(&load), "completions came although bus master is off");
	master(blk, true);
	load_drain(&load, "after the refusal");
	load_verify_all(&load, "at the end");
	drive_blk_close(blk);
	drive_client_close(client);
	end(&server);
	remove_place(&place);
}

const struct scenario_entry state_scenarios[] = {
	{ "state-move", state_move, "saved under load, and on in another process" },
	{ "state-move-closed", state_move_closed, "the same with bus master off" },
	{ "state-move-messages", state_move_messages, "the same with memory that is reached by message" },
	{ "state-resume", state_resume, "saved and resumed; an older level refuses a closed gate" },
	{ NULL, NULL, NULL },
};
