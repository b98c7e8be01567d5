// SPDX-License-Identifier: GPL-2.0-only
/*
 * A small s390x machine for the laboratory: one processor (Unicorn), memory, consoles, and Pintle's channel subsystem and zPCI with their devices.
 *
 *   machine -k KERNEL [-i INITRD] [-a COMMAND LINE] [-m MEGABYTES] [-d COMMAND]... [-l LOG FILE] [-s SHELL FD] [-c CONTROL FD]
 *
 * -d runs a command of the control line (README.md has them) before the guest begins. Without -s the VT220 console is standard input and output.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "console.h"
#include "control.h"
#include "devices.h"
#include "glue.h"
#include "interrupt.h"
#include "ipl.h"
#include "machine.h"
#include "memory.h"
#include "pending.h"
#include "sclp.h"

#define COMMANDS_MOST 16
/* How often the host thread looks at what has no descriptor: repeated kicks, the scratch function's time. */
#define TICK_MS 5

static struct {
	const char *kernel, *initrd, *line, *log;
	const char *commands[COMMANDS_MOST];
	unsigned command_count;
	uint64_t megabytes;
	int shell_in, shell_out, control;
} options = { .line = "", .megabytes = 512, .shell_in = 0, .shell_out = 1, .control = -1 };

static struct pintle_loop *loop;
static atomic_int wish, exit_status;
static atomic_bool host_ends;

/* ---- what the machine does next ---- */

void machine_wants(enum machine_wish what)
{
	int now = atomic_load(&wish);

	while (now < (int)what && !atomic_compare_exchange_weak(&wish, &now, (int)what))
		;
	glue_kick();
}

enum machine_wish machine_wish(void)
{
	return (enum machine_wish)atomic_load(&wish);
}

void machine_failed(int status)
{
	int none = 0;
	atomic_compare_exchange_strong(&exit_status, &none, status);
}

void machine_stopped(uint64_t address)
{
	/* Linux' own way to stop, where there is no hypervisor, has an address that ends so. */
	if ((address & 0xfff) != 0xfff) {
		fprintf(stderr, "s390: disabled wait, address %#lx\n", address);
		machine_failed(3);
	}
	machine_wants(MACHINE_END);
}

/* ---- the host thread ---- */

static struct pending *reset_wanted; /* guarded by: lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void begin_reset(void)
{
	pthread_mutex_lock(&lock);
	struct pending *wanted = reset_wanted;
	reset_wanted = NULL;
	pthread_mutex_unlock(&lock);
	if (wanted)
		devices_reset(pending_done, wanted);
}

static void read_shell(void)
{
	char bytes[4096];
	uint64_t room = sclp_input_room();
	ssize_t n = read(options.shell_in, bytes, room < sizeof bytes ? room : sizeof bytes);

	if (n > 0)
		sclp_input(bytes, (uint64_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		options.shell_in = -1;
		/* Whoever held the other end is gone. */
		if (options.control >= 0)
			machine_wants(MACHINE_END);
	}
}

static void *host_thread(void *unused)
{
	while (!atomic_load(&host_ends)) {
		struct pollfd wait[] = {
			{ clock_descriptor(), POLLIN, 0 },
			{ pintle_loop_descriptor(loop), POLLIN, 0 },
			{ sclp_input_room() ? options.shell_in : -1, POLLIN, 0 },
			{ options.control, POLLIN, 0 },
		};
		poll(wait, sizeof wait / sizeof *wait, TICK_MS);
		if (wait[0].revents)
			clock_ring();
		if (wait[2].revents)
			read_shell();
		if (wait[3].revents && !control_read()) {
			options.control = -1;
			machine_wants(MACHINE_END);
		}
		begin_reset();
		while (pintle_loop_turn(loop, 0) > 0)
			;
		devices_reap();
		glue_repeat_kick();
	}
	return unused;
}

/* ---- the processor's thread ---- */

static void reset_devices(void)
{
	struct pending pending;

	pending_begin(&pending);
	pthread_mutex_lock(&lock);
	reset_wanted = &pending;
	pthread_mutex_unlock(&lock);
	pending_wait(&pending);
}

static bool run_machine(void)
{
	for (;;) {
		atomic_store(&wish, MACHINE_RUN);
		memory_clear();
		glue_forget_everything();
		if (!ipl_load())
			return false;
		glue_run();
		if (machine_wish() != MACHINE_IPL)
			return machine_wish() == MACHINE_END;
		control_say("* ipl");
		reset_devices();
		sclp_reset();
	}
}

/* ---- set-up ---- */

static bool parse(int count, char **words)
{
	int option;

	while ((option = getopt(count, words, "k:i:a:m:d:l:s:c:")) != -1) {
		switch (option) {
		case 'k':
			options.kernel = optarg;
			break;
		case 'i':
			options.initrd = optarg;
			break;
		case 'a':
			options.line = optarg;
			break;
		case 'm':
			options.megabytes = strtoul(optarg, NULL, 0);
			break;
		case 'd':
			if (options.command_count == COMMANDS_MOST)
				return false;
			options.commands[options.command_count++] = optarg;
			break;
		case 'l':
			options.log = optarg;
			break;
		case 's':
			options.shell_in = options.shell_out = (int)strtol(optarg, NULL, 0);
			break;
		case 'c':
			options.control = (int)strtol(optarg, NULL, 0);
			break;
		default:
			return false;
		}
	}
	return options.kernel && optind == count;
}

static bool set_up(void)
{
	int log = options.log ? open(options.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : 2;

	if (log < 0) {
		perror(options.log);
		return false;
	}
	console_set_descriptors(log, options.shell_out);
	control_set_descriptor(options.control);
	ipl_set(options.kernel, options.initrd, options.line);
	clock_create();
	if (!memory_create(options.megabytes << 20) || !glue_create() || pintle_loop_create(&loop, "s390", NULL) < 0 || !devices_create(loop))
		return false;
	for (unsigned i = 0; i < options.command_count; i++)
		if (!control_run(options.commands[i]))
			return false;
	return control_run("running");
}

int main(int count, char **words)
{
	pthread_t host;

	if (!parse(count, words)) {
		fprintf(stderr, "usage: machine -k KERNEL [-i INITRD] [-a COMMAND LINE] [-m MEGABYTES] [-d COMMAND]... [-l LOG FILE] [-s SHELL FD] "
				"[-c CONTROL FD]\n");
		return 2;
	}
	if (!set_up() || pthread_create(&host, NULL, host_thread, NULL))
		return 1;
	if (!run_machine())
		machine_failed(1);
	atomic_store(&host_ends, true);
	pthread_join(host, NULL);
	devices_destroy();
	pintle_loop_destroy(loop);
	return atomic_load(&exit_status);
}
