// SPDX-License-Identifier: BSD-2-Clause
/*
 * A physical function on a kernel in the process (host_kernel.h): what happens to the hardware behind everyone's back is found and healed, errors of the bus are told and end in a reset where
 * they are fatal, resets escalate, and the device is clean when its client has gone.
 */
#include "pci_rig.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>

#include "base/helper.h"
#include "base/mutate.h"
#include "host/bind.h"
#include "host/private.h"
#include "host_kernel.h"
#include "race_time.h"

#define COMMAND (PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)
#define ROUNDS 100

static struct host_function *function;
static struct kernel_paths paths;

static struct host_status status(void)
{
	struct host_status status;

	host_function_status(function, &status);
	return status;
}

static int create(struct pintle_error *err)
{
	struct host_function_options options = {
		.name = "h0", .address = "03:00.0", .sysfs = paths.sysfs, .dev = paths.dev, .records = paths.records, .container = &kernel_container, .ready_ms = 2000,
	};

	return host_function_create(&function, &options, rig.owner, err);
}

static void start(bool soft_reset, const char *methods)
{
	struct pintle_error err = { 0 };

	memset(&rig, 0, sizeof rig);
	paths = *kernel_begin(soft_reset, methods);
	assert_int_equal(loop_create(&rig.owner, "owner", NULL), 0);
	int r = create(&err);
	if (r)
		print_message("%s\n", err.text);
	assert_int_equal(r, 0);
	rig.function = host_function_pci(function);
}

static void stopped(void *context)
{
	*(bool *)context = true;
}

static void finish(void)
{
	bool done = false;

	host_function_stop(function, stopped, &done);
	turn_until(rig.owner, &done);
	host_function_destroy(function);
	turn_idle(rig.owner);
	loop_destroy(rig.owner);
	helper_drain();
	kernel_end();
}

/* Turns the loop until no job is under way and the device is in this state. */
static void settle(enum host_state state)
{
	turn_idle(rig.owner);
	while (status().state != state || function->running || function->posted)
		loop_turn(rig.owner, 10);
	turn_idle(rig.owner);
}

struct look {
	bool done;
	int found;
};

static void looked(void *context, int found)
{
	*(struct look *)context = (struct look){ true, found };
}

static int look(void)
{
	struct look look = { 0 };

	host_function_check(function, looked, &look);
	turn_until(rig.owner, &look.done);
	return look.found;
}

static void set_up(void)
{
	config_write(rig.function->msix_at + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	config_write(PCI_COMMAND, 2, COMMAND);
	for (unsigned i = 0; i < 2; i++) {
		uint8_t unmasked[4] = { 0 };

		assert_int_equal(rig_access(0, 0x2000 + 16 * i + PCI_MSIX_ENTRY_VECTOR_CTRL, unmasked, 4, true), 0);
	}
}

/* The driver's way up: a client, two vectors, memory and bus master. */
static void drive_up(int vectors[2])
{
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	for (unsigned i = 0; i < 2; i++)
		vectors[i] = rig_bind(IRQ_MSIX, i);
	set_up();
}

static int drive_down(int vectors[2])
{
	int r = rig_event(LIFE_EVENT_DISCONNECT);

	for (unsigned i = 0; i < 2; i++)
		close(vectors[i]);
	return r;
}

static void delivers(int vectors[2])
{
	for (unsigned i = 0; i < 2; i++) {
		rig_come(vectors[i]);
		assert_true(kernel_fire(i));
		assert_int_equal(rig_come(vectors[i]), 1);
	}
}

static void put_register(uint32_t at, uint32_t value)
{
	uint8_t data[4];

	store_le32(data, value);
	assert_int_equal(rig_access(0, at, data, 4, true), 0);
}

static uint32_t get_register(uint32_t at)
{
	uint8_t data[4] = { 0 };

	assert_int_equal(rig_access(0, at, data, 4, false), 0);
	return load_le32(data);
}

static void is_clean(void)
{
	struct kernel_counts counts = kernel_counts();

	assert_int_equal(counts.bound, 0);
	assert_int_equal(counts.mapped, 0);
	assert_int_equal(kernel_config(PCI_COMMAND, 2), 0);
	assert_int_equal(kernel_config(PCI_BASE_ADDRESS_0, 4), KERNEL_BAR0);
	assert_int_equal(kernel_config(KERNEL_MSIX + PCI_MSIX_FLAGS, 2) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL), 0);
	assert_int_equal(life_state(pci_function_life(rig.function)), LIFE_STATE_FREE);
}

/* ---- found and healed ---- */

static void test_found(void **state)
{
	static void (*const behind[])(void) = { kernel_reset_behind, kernel_lose_bars };
	int vectors[2];
	(void)state;

	start(false, "flr bus\n");
	drive_up(vectors);
	delivers(vectors);
	put_register(8, 0x1234);
	assert_int_equal(get_register(8), 0x1234);
	assert_int_equal(look(), 0);
	assert_int_equal(status().found, 0);
	kernel_lose_bars();
	assert_int_equal(look(), 1);
	assert_string_equal(status().last, "reset by somebody else: BAR 0 is 0x4 instead of 0xfe000004");
	assert_int_equal(get_register(8), 0x1234);
	delivers(vectors);
	/* Packets of 256 bytes are what the bus uses, and VFIO cannot say so to the device: rather none than one that fails now and then. */
	kernel_set_config(KERNEL_EXPRESS + PCI_EXP_DEVCTL, 2, 0x200f);
	assert_int_equal(look(), -EIO);
	settle(HOST_FAILED);
	assert_non_null(strstr(status().last, "serve it anew"));
	assert_int_equal(drive_down(vectors), -EIO);
	assert_int_equal(life_state(pci_function_life(rig.function)), LIFE_STATE_QUARANTINED);
	finish();

	for (unsigned i = 0; i < ARRAY_SIZE(behind); i++) {
		start(false, "flr bus\n");
		kernel_set_config(KERNEL_EXPRESS + PCI_EXP_DEVCTL, 2, 0xf);
		function->marks.express = 0xf;
		drive_up(vectors);
		behind[i]();
		assert_false(kernel_fire(0) && get_register(8) != UINT32_MAX);
		assert_int_equal(look(), 1);
		assert_int_equal(status().healed, 1);
		assert_int_equal(kernel_config(PCI_BASE_ADDRESS_0, 4), KERNEL_BAR0);
		assert_int_equal(kernel_config(KERNEL_EXPRESS + PCI_EXP_DEVCTL, 2), 0xf);
		delivers(vectors);
		/* What was bound before the loss is told to look, once. */
		assert_int_equal(drive_down(vectors), 0);
		is_clean();
		finish();
	}
}

/* It happens while nobody is there: found before the next client uses anything. */
static void test_found_at_attach(void **state)
{
	int vectors[2];
	(void)state;

	start(false, "flr bus\n");
	kernel_lose_bars();
	drive_up(vectors);
	settle(HOST_READY);
	assert_int_equal(status().healed, 1);
	delivers(vectors);
	assert_int_equal(drive_down(vectors), 0);
	is_clean();
	finish();
}

/* Silence for less time than a device may take after a reset: no ones are saved and restored. */
static void test_silence(void **state)
{
	int vectors[2];
	(void)state;

	start(false, "flr bus\n");
	drive_up(vectors);
	kernel_be_silent(150);
	assert_int_equal(look(), -EIO);
	assert_int_equal(get_register(8), UINT32_MAX);
	settle(HOST_READY);
	assert_int_equal(status().resets, 1);
	assert_int_equal(kernel_config(PCI_BASE_ADDRESS_0, 4), KERNEL_BAR0);
	delivers(vectors);
	/* One that never comes back. */
	kernel_be_silent(100000);
	assert_int_equal(look(), -EIO);
	settle(HOST_FAILED);
	assert_int_equal(drive_down(vectors), -EIO);
	assert_int_equal(life_state(pci_function_life(rig.function)), LIFE_STATE_QUARANTINED);
	finish();
}

static void slow_stop(enum life_event event)
{
	struct rig_request reset = { 0 };
	int vectors[2];

	start(false, "flr bus\n");
	drive_up(vectors);
	kernel_hold_command(true);
	rig_submit_reset(&reset, event);
	for (uint64_t end = loop_clock() + UINT64_C(2300000000); loop_clock() < end;)
		loop_turn(rig.owner, 10);
	assert_false(reset.complete);
	assert_int_equal(kernel_config(PCI_COMMAND, 2) & PCI_COMMAND_MASTER, PCI_COMMAND_MASTER);
	kernel_hold_command(false);
	turn_until(rig.owner, &reset.complete);
	assert_int_equal(reset.result, 0);
	assert_int_equal(kernel_config(PCI_COMMAND, 2) & PCI_COMMAND_MASTER, 0);
	settle(HOST_READY);
	assert_int_equal(drive_down(vectors), 0);
	is_clean();
	finish();
}

/* A reset that the client or its guest asks for is answered before it has ended where that takes long, but never while the device may still write to memory. */
static void test_slow_stop(void **state)
{
	(void)state;

	slow_stop(LIFE_EVENT_DEVICE_RESET);
	slow_stop(LIFE_EVENT_FLR);
}

/* MSI-X that the guest has enabled is enabled in the device before anything is bound: drivers, and devices, look at that. */
static void test_nothing_bound(void **state)
{
	const uint16_t enables[] = { PCI_MSIX_FLAGS_ENABLE, 0, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, PCI_MSIX_FLAGS_ENABLE };
	(void)state;

	start(false, "flr bus\n");
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(enables); i++) {
		config_write(rig.function->msix_at + PCI_MSIX_FLAGS, 2, enables[i]);
		assert_int_equal(kernel_config(KERNEL_MSIX + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_ENABLE, enables[i] & PCI_MSIX_FLAGS_ENABLE);
		assert_int_equal(kernel_counts().bound, 0);
	}
	assert_int_equal(look(), 0);
	assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), 0);
	is_clean();
	finish();
}

/* ---- power ---- */

static void sleep_and_wake(void)
{
	config_write(rig.function->power_at + PCI_PM_CTRL, 2, 3);
	assert_int_equal(kernel_config(PCI_COMMAND, 2) & PCI_COMMAND_MASTER, 0);
	config_write(rig.function->power_at + PCI_PM_CTRL, 2, 0);
}

static void test_power(void **state)
{
	int vectors[2];
	(void)state;

	/* No_Soft_Reset: all is kept, by the guest's doing and by others'. */
	start(false, "flr bus\n");
	drive_up(vectors);
	put_register(8, 0x1234);
	assert_int_equal(config_read(rig.function->power_at + PCI_PM_CTRL, 2), PCI_PM_CTRL_NO_SOFT_RESET);
	sleep_and_wake();
	assert_int_equal(status().resets, 0);
	assert_int_equal(get_register(8), 0x1234);
	delivers(vectors);
	kernel_sleep_behind();
	assert_int_equal(look(), 0);
	assert_string_equal(status().last, "found in D3hot, woken; its state is kept");
	assert_int_equal(get_register(8), 0x1234);
	delivers(vectors);
	assert_int_equal(drive_down(vectors), 0);
	finish();

	/* Without: the guest's D0 is a reset, over when it is answered; its registers are as after one, its triggers stay. */
	start(true, "pm bus\n");
	drive_up(vectors);
	put_register(8, 0x1234);
	assert_int_equal(config_read(rig.function->power_at + PCI_PM_CTRL, 2), 0);
	sleep_and_wake();
	assert_int_equal(status().resets, 1);
	assert_int_equal(kernel_counts().power_cycles, 1);
	assert_int_equal(config_read(PCI_COMMAND, 2), 0);
	set_up();
	assert_int_equal(get_register(8), 0);
	delivers(vectors);
	/* By others: found, and what was held is held again. */
	kernel_sleep_behind();
	assert_int_equal(look(), 1);
	assert_int_equal(kernel_config(PCI_COMMAND, 2) & COMMAND, COMMAND);
	delivers(vectors);
	assert_int_equal(drive_down(vectors), 0);
	is_clean();
	finish();
}

/* ---- errors of the bus ---- */

static void test_errors(void **state)
{
	int vectors[2];
	(void)state;

	start(false, "flr bus\n");
	kernel_set_config(KERNEL_EXPRESS + PCI_EXP_DEVCTL, 2, 0xf);
	function->marks.express = 0xf;
	drive_up(vectors);
	int told = rig_bind(IRQ_ERR, 0), asked = rig_bind(IRQ_REQ, 0);
	kernel_error(KERNEL_CORRECTED);
	assert_int_equal(look(), 0);
	assert_true(status().has_errors);
	assert_int_equal(status().correctable, 1);
	assert_int_equal(rig_come(told), 0);
	/* Told: passed on, and looked at at once. */
	uint64_t checks = status().checks;
	kernel_error(KERNEL_NONFATAL);
	while (status().checks == checks)
		loop_turn(rig.owner, 10);
	assert_int_equal(rig_come(told), 1);
	assert_int_equal(status().errors, 1);
	assert_int_equal(status().nonfatal, 1);
	assert_int_equal(status().resets, 0);
	delivers(vectors);
	/* Fatal: the kernel resets the link and leaves it so; then it is our turn. Twice, because errors have to be reported again afterwards. */
	for (unsigned i = 1; i < 3; i++) {
		kernel_error(KERNEL_FATAL);
		while (status().fatal_resets < i)
			loop_turn(rig.owner, 10);
		settle(HOST_READY);
		assert_int_equal(rig_come(told), 1);
		assert_int_equal(status().resets, i);
		assert_int_equal(status().uncorrectable_status, 0);
		assert_int_equal(kernel_config(PCI_BASE_ADDRESS_0, 4), KERNEL_BAR0);
		assert_int_equal(kernel_config(KERNEL_EXPRESS + PCI_EXP_DEVCTL, 2), 0xf);
		assert_int_equal(look(), 0);
		delivers(vectors);
	}
	kernel_request();
	while (!status().requests)
		loop_turn(rig.owner, 10);
	assert_int_equal(rig_come(asked), 1);
	close(told);
	close(asked);
	assert_int_equal(drive_down(vectors), 0);
	is_clean();
	/* With nobody there as well. */
	kernel_error(KERNEL_FATAL);
	while (status().fatal_resets < 3)
		loop_turn(rig.owner, 10);
	settle(HOST_READY);
	is_clean();
	/* It does not come back, and nobody notices until a client comes: it is tried once more then. */
	kernel_spoil("all");
	kernel_error(KERNEL_FATAL);
	settle(HOST_FAILED);
	kernel_spoil(NULL);
	pci_function_client(rig.function, -1);
	assert_int_equal(rig_event(LIFE_EVENT_CONNECT), 0);
	settle(HOST_READY);
	assert_int_equal(rig_event(LIFE_EVENT_DISCONNECT), 0);
	is_clean();
	finish();
}

/* ---- escalation ---- */

static void test_escalation(void **state)
{
	int vectors[2];
	(void)state;

	start(true, "flr pm bus\n");
	drive_up(vectors);
	kernel_spoil("flr");
	assert_int_equal(drive_down(vectors), 0);
	assert_string_equal(kernel_counts().last_method, "pm");
	assert_int_equal(status().escalations, 2);
	assert_true(kernel_counts().recorded);
	assert_string_equal(kernel_methods(), "flr pm bus");
	is_clean();
	/* Where no choice is possible, D3hot to D0 is made by hand. */
	int fd = function->methods.fd;
	function->methods.fd = -1;
	drive_up(vectors);
	unsigned cycles = kernel_counts().power_cycles;
	assert_int_equal(drive_down(vectors), 0);
	assert_int_equal(kernel_counts().power_cycles, cycles + 1);
	is_clean();
	function->methods.fd = fd;
	/* Nothing helps: never offered again, and the list is whole. */
	drive_up(vectors);
	kernel_spoil("all");
	assert_int_equal(drive_down(vectors), -EIO);
	assert_int_equal(life_state(pci_function_life(rig.function)), LIFE_STATE_QUARANTINED);
	assert_string_equal(kernel_methods(), "flr pm bus");
	finish();
}

/* A server died while the list was narrowed: whoever comes next makes it whole. */
static void test_killed(void **state)
{
	char record[320], former[HOST_NAME_MAX], text[HOST_NAME_MAX + 1] = "";
	(void)state;

	start(true, "flr pm bus\n");
	snprintf(record, sizeof record, "%s/" KERNEL_DEVICE ".reset_method", paths.records);
	assert_int_equal(host_methods_choose(&function->methods, "pm"), 0);
	assert_string_equal(kernel_methods(), "pm");
	/* Not while it is served. */
	assert_int_equal(host_bind(paths.sysfs, paths.records, KERNEL_DEVICE, former, NULL), 0);
	assert_string_equal(kernel_methods(), "pm");
	/* The end without the rest of it. */
	bool done = false;
	host_function_stop(function, stopped, &done);
	turn_until(rig.owner, &done);
	host_function_destroy(function);
	assert_int_equal(create(NULL), 0);
	rig.function = host_function_pci(function);
	assert_string_equal(function->methods.list, "flr pm bus");
	assert_string_equal(kernel_methods(), "flr pm bus");
	int fd = open(record, O_RDONLY);
	assert_int_equal(read(fd, text, sizeof text), HOST_NAME_MAX);
	assert_int_equal(strspn(text, " "), HOST_NAME_MAX - 1);
	close(fd);
	/* Or `pintle bind`. */
	assert_int_equal(host_methods_choose(&function->methods, "bus"), 0);
	done = false;
	host_function_stop(function, stopped, &done);
	turn_until(rig.owner, &done);
	host_function_destroy(function);
	assert_string_equal(kernel_methods(), "bus");
	assert_int_equal(host_bind(paths.sysfs, paths.records, KERNEL_DEVICE, former, NULL), 0);
	assert_string_equal(kernel_methods(), "flr pm bus");
	kernel_show_methods();
	assert_int_equal(create(NULL), 0);
	rig.function = host_function_pci(function);
	finish();
}

/* What was broken before it was opened is not served. */
static void test_broken_before(void **state)
{
	struct pintle_error err = { 0 };
	(void)state;

	memset(&rig, 0, sizeof rig);
	paths = *kernel_begin(false, "flr bus\n");
	assert_int_equal(loop_create(&rig.owner, "owner", NULL), 0);
	kernel_lose_bars();
	assert_int_equal(create(&err), -EIO);
	assert_non_null(strstr(err.text, "BAR 0"));
	assert_non_null(strstr(err.text, "rescan"));
	loop_destroy(rig.owner);
	kernel_end();
}

/* ---- at any moment ---- */

static _Atomic bool over;

static void *disturb(void *argument)
{
	unsigned seed = *(unsigned *)argument;

	while (!atomic_load(&over)) {
		switch (rand_r(&seed) % 8) {
		case 0: kernel_reset_behind(); break;
		case 1: kernel_lose_bars(); break;
		case 2: kernel_sleep_behind(); break;
		case 3: kernel_be_silent((unsigned)rand_r(&seed) % 20); break;
		case 4: kernel_error(KERNEL_NONFATAL); break;
		case 5: kernel_error(KERNEL_CORRECTED); break;
		default: kernel_fire((unsigned)rand_r(&seed) % 2); break;
		}
		nanosleep(&(struct timespec){ .tv_nsec = rand_r(&seed) % 3000000 }, NULL);
	}
	return NULL;
}

static void sleep_and_wake_freely(void)
{
	config_write(rig.function->power_at + PCI_PM_CTRL, 2, 3);
	config_write(rig.function->power_at + PCI_PM_CTRL, 2, 0);
}

/* Until nothing is under way that has begun. */
static void settle_somehow(void)
{
	do
		loop_turn(rig.owner, 10);
	while (function->running || function->posted || status().state == HOST_RESETTING);
	turn_idle(rig.owner);
}

/* The guest's own doings, in any order, while another thread does to the device what it likes; afterwards it works, or is known not to. */
static void test_disturbed(void **state)
{
	uint64_t begun = loop_clock();
	unsigned seed = 1, others, working = 0;
	(void)state;

	start(true, "flr pm bus\n");
	kernel_set_config(KERNEL_EXPRESS + PCI_EXP_DEVCTL, 2, 0xf);
	function->marks.express = 0xf;
	function->check_ns = 1000000;
	for (unsigned round = 0; race_goes_on(begun, round, 5, ROUNDS); round++) {
		int vectors[2];
		pthread_t other;

		drive_up(vectors);
		atomic_store(&over, false);
		others = seed + 1;
		assert_int_equal(pthread_create(&other, NULL, disturb, &others), 0);
		for (unsigned i = 0; i < 60; i++) {
			switch (rand_r(&seed) % 16) {
			case 0: config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY); break;
			case 1: sleep_and_wake_freely(); break;
			case 2: host_function_check(function, NULL, NULL); break;
			case 3: rig_event(LIFE_EVENT_DEVICE_RESET); break;
			case 4: config_write(rig.function->msix_at + PCI_MSIX_FLAGS, 2, 0); break;
			case 5: close(vectors[1]); vectors[1] = rig_bind(IRQ_MSIX, 1); break;
			case 6: put_register(0x2010 + PCI_MSIX_ENTRY_VECTOR_CTRL, PCI_MSIX_ENTRY_CTRL_MASKBIT); break;
			case 7: put_register(0x2010 + PCI_MSIX_ENTRY_VECTOR_CTRL, 0); break;
			case 8:
			case 9: config_write(rig.function->msix_at + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE); break;
			case 10: put_register(8, i); break;
			case 11:
			case 12: config_write(PCI_COMMAND, 2, COMMAND); break;
			default: loop_turn(rig.owner, (int)((unsigned)rand_r(&seed) % 4)); break;
			}
		}
		atomic_store(&over, true);
		pthread_join(other, NULL);
		kernel_be_silent(0);
		settle_somehow();
		if (status().state == HOST_READY) {
			/* D0 may have been written while the device was not ready. */
			config_write(rig.function->power_at + PCI_PM_CTRL, 2, 0);
			look();
			settle_somehow();
			assert_int_equal(status().state, HOST_READY);
			set_up();
			delivers(vectors);
			working++;
		}
		assert_int_equal(drive_down(vectors), 0);
		is_clean();
	}
	assert_true(status().found > 0 && working > 0);
	print_message("%llu looks, %llu found, %llu healed, %llu resets; it worked in %u rounds\n", (unsigned long long)status().checks, (unsigned long long)status().found,
		      (unsigned long long)status().healed, (unsigned long long)status().resets, working);
	finish();
}

/* ---- the tests can fail ---- */

#ifdef PINTLE_MUTATIONS
static void fails(const char *mutation, const char *test)
{
	int status;
	pid_t child = fork();

	if (!child) {
		int nothing = open("/dev/null", O_RDWR);

		dup2(nothing, 1);
		dup2(nothing, 2);
		setenv("PINTLE_MUTATE", mutation, 1);
		execl("/proc/self/exe", "test_host_function", test, (char *)NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status));
}

static void test_mutations(void **state)
{
	/* A test that fails leaves its folder behind. */
	char folder[] = "/tmp/pintle-mutations-XXXXXX";
	(void)state;

	assert_non_null(mkdtemp(folder));
	setenv("TMPDIR", folder, 1);
	fails("law2.bars", "test_found");
	fails("law8.power", "test_power");
	unsetenv("TMPDIR");
	kernel_remove(folder);
}
#endif

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),	   cmocka_unit_test(test_found_at_attach), cmocka_unit_test(test_silence), cmocka_unit_test(test_slow_stop), cmocka_unit_test(test_nothing_bound), cmocka_unit_test(test_power),
		cmocka_unit_test(test_errors),	   cmocka_unit_test(test_escalation),	   cmocka_unit_test(test_killed),  cmocka_unit_test(test_broken_before),
		cmocka_unit_test(test_disturbed),
#ifdef PINTLE_MUTATIONS
		cmocka_unit_test(test_mutations),
#endif
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
