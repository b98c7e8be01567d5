// SPDX-License-Identifier: BSD-2-Clause
/*
 * Load while faults are injected that a driver does not have to do anything about: nothing is lost, nothing is torn, no interrupt is missing.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "load.h"

/* Each fault that closes something has its opposite; what is by chance comes from the seed. */
static const char script[] = "every 3ms..20ms random d0 bus-master-off,bus-master-on,bus-master-on\n"
			     "every 5ms..30ms random d0 stop,continue,continue\n"
			     "every 5ms..40ms d0 withdraw-mapping pick=0..1000000 for=1ms..5ms\n"
			     "every 10ms..60ms d0 withdraw-mapping pick=0..1000000 size=4096..65536 for=1ms..5ms\n"
			     "every 10ms..40ms random d0 backdoor-reset kind=msix-table\n"
			     "every 10ms..40ms random d0 backdoor-reset kind=bist\n"
			     "every 2ms..20ms d0 spurious-interrupt vector=0..1\n"
			     "every 20ms..60ms d0 slow time=1ms..5ms count=1..20\n"
			     "end 3s\n";

static pid_t begin(const struct rig *rig, const char *const *arguments)
{
	char control[160];
	const char *argv[16] = { scenario.program, "inject", "--socket", control };
	unsigned n = 4;

	snprintf(control, sizeof control, "%s/control", rig->folder);
	while (*arguments)
		argv[n++] = *arguments++;
	pid_t pid = fork();
	check(pid >= 0, "cannot start a process: %s", strerror(errno));
	if (!pid) {
		/* The script's events, and what is refused (there may be no mapping left to take), are of no interest here. */
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(127);
		execv(scenario.program, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	return pid;
}

static void inject(const struct rig *rig, const char *fault)
{
	int status;
	pid_t pid = begin(rig, (const char *const[]){ "d0", fault, NULL });
	check(waitpid(pid, &status, 0) == pid && !status, "pintle inject d0 %s: status %#x", fault, (unsigned)status);
}

static void inject_load(void)
{
	struct rig rig = { 0 };
	struct drive_blk_options options = rig_blk_options();
	static struct load load;
	char path[160], seed[32];
	int status;

	note("seed %llu", (unsigned long long)scenario.seed);
	rig_device(&rig, LOAD_IMAGE, NULL);
	rig_start(&rig);
	snprintf(path, sizeof path, "%s/script", rig.folder);
	snprintf(seed, sizeof seed, "%llu", (unsigned long long)scenario.seed);
	FILE *file = fopen(path, "w");
	check(file && fputs(script, file) >= 0 && !fclose(file), "cannot write the script");
	load_init(&load, rig.devices[0].image, scenario.seed);
	struct drive_client *client = rig_connect(&rig, 0);
	struct drive_blk *blk = rig_open(client, &options);
	load_use(&load, blk);
	pid_t pid = begin(&rig, (const char *const[]){ "--script", path, "--seed", seed, NULL });
	uint64_t before = load.completed;
	while (waitpid(pid, &status, WNOHANG) != pid)
		load_pump_for(&load, 5);
	unlink(path);
	check(!status, "the script ended with status %#x", (unsigned)status);
	check(load.completed > before + 100, "only %llu requests were completed beside the script", (unsigned long long)(load.completed - before));
	inject(&rig, "bus-master-on");
	inject(&rig, "continue");
	inject(&rig, "give-back");
	load_drain(&load, "after the script");
	load_verify_all(&load, "after the script");
	check_healthy(blk, "after the script");
	note("%llu requests completed", (unsigned long long)load.completed);
	drive_blk_close(blk);
	drive_client_close(client);
	rig_end(&rig);
}

const struct scenario_entry inject_scenarios[] = {
	{ "inject-load", inject_load, "load while a script injects what a driver need not notice" },
	{ NULL, NULL, NULL },
};
