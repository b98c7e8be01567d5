// SPDX-License-Identifier: BSD-2-Clause
/*
 * One sequence, in this process: the server, its functions, the steps, and what has to be true when all is over.
 */
#include "matrix.h"

#include <sys/wait.h>
#include <unistd.h>

static void start(struct rig *rig, const struct variant *v)
{
	char backend[96];

	scenario.polling = v->polling;
	scenario.lenient = v->lenient;
	scenario.in_order = v->in_order;
	rig->io_threads = v->io_threads;
	for (unsigned i = 0; i < v->functions; i++) {
		snprintf(backend, sizeof backend, "backend=memory,size=%u,", (unsigned)MATRIX_IMAGE);
		rig_device(rig, v->memory ? 0 : MATRIX_IMAGE, "%squeues=%u,delay=%ums,delay-before=on%s", v->memory ? backend : "", v->queues,
			   v->delay_ms, v->zero_copy ? ",zero-copy=on" : "");
	}
	rig_start(rig);
}

static void check_alive(struct rig *rig)
{
	int status;

	if (waitpid(rig->pid, &status, WNOHANG) == rig->pid) {
		rig->pid = 0;
		fail("the server is gone: %s %d", WIFSIGNALED(status) ? "signal" : "status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
}

#define EVENTS_MAX 64u
static bool done[EVENTS_MAX];

/* The rows of the matrix that this run has been through, for its record. */
static void say_rows(void)
{
	fputs("rows:", stderr);
	for (const struct event *e = events; e->name; e++)
		if (e->row && done[e - events])
			fprintf(stderr, " %s", e->row);
	fputc('\n', stderr);
}

static void run_step(struct rig *rig, const struct sequence *sequence, size_t i)
{
	const struct step *step = &sequence->steps[i];
	struct function *f = &functions[step->function % sequence->variant.functions];
	double end = now_ms() + step->after_us / 1e3;

	do {
		for (unsigned k = 0; k < sequence->variant.functions; k++)
			traffic_pump(&functions[k]);
	} while (now_ms() < end);
	f->last = step->event->name;
	f->idle = false;
	if (getenv("MATRIX_TRACE"))
		note("step %zu: d%u %s", i, f->index, f->last);
	step->event->run(f, step->args);
	done[step->event - events] = done[step->event - events] || !f->idle;
	check_alive(rig);
}

/* What is left when the last client has gone: nothing of it. Some of it goes a moment later. */
static void check_left(const struct rig *rig, struct footprint before)
{
	double end = now_ms() + PATIENCE_MS;
	struct footprint now;

	for (;;) {
		now = rig_footprint(rig);
		if (now.descriptors <= before.descriptors && !now.guest_maps)
			return;
		check(now_ms() < end, "the server has %u descriptors and %u maps of guest memory when its clients have gone; it had %u and none when they came",
		      now.descriptors, now.guest_maps, before.descriptors);
		sleep_ms(5);
	}
}

/* Before the first client of the sequence: the least that is seen for a while, since a client's descriptors may go a moment after it. */
static struct footprint footprint_at_rest(const struct rig *rig)
{
	struct footprint least = rig_footprint(rig), now;

	for (unsigned i = 0; i < 20; i++) {
		sleep_ms(5);
		now = rig_footprint(rig);
		if (now.descriptors < least.descriptors)
			least = now;
	}
	return least;
}

static void verify_all(struct function *f)
{
	for (uint32_t i = 0; i < MATRIX_BLOCKS; i++)
		check(!f->blocks[i].busy, "the driver has lost count");
	traffic_verify(f, "the end");
}

/* What is opened at first use and kept (the thread for memory by message, too) is there after one client. */
static void first_life(struct function *f)
{
	function_attach(f, true);
	function_message(f, MATRIX_ALL, true);
	if (f->variant->delay_ms < 1000) {
		traffic_pump(f);
		traffic_drain(f, "the beginning");
		function_message(f, MATRIX_ALL, false);
		traffic_verify(f, "the beginning");
	}
	function_detach(f);
}

void run_sequence(const struct sequence *sequence)
{
	const struct variant *v = &sequence->variant;
	struct rig rig = { 0 };
	uint64_t completed = 0, forgotten = 0, interrupts = 0;

	start(&rig, v);
	for (unsigned i = 0; i < v->functions; i++) {
		functions[i] = (struct function){ .rig = &rig, .variant = v, .index = i, .last = "the beginning" };
		traffic_init(&functions[i], sequence->seed);
		first_life(&functions[i]);
	}
	struct footprint before = footprint_at_rest(&rig);
	for (unsigned i = 0; i < v->functions; i++)
		function_attach(&functions[i], false);
	for (size_t i = 0; i < sequence->count; i++)
		run_step(&rig, sequence, i);
	for (unsigned i = 0; i < v->functions; i++) {
		struct function *f = &functions[i];
		f->last = "the end";
		function_recover(f);
		traffic_drain(f, "the end");
		if (v->delay_ms < 1000)
			verify_all(f);
		completed += f->completed;
		forgotten += f->forgotten;
		interrupts += f->interrupts;
	}
	for (unsigned i = 0; i < v->functions; i++)
		function_detach(&functions[i]);
	check_left(&rig, before);
	rig_end(&rig);
	say_rows();
	note("%zu steps, %llu requests done, %llu forgotten by resets, %llu interrupts", sequence->count, (unsigned long long)completed,
	     (unsigned long long)forgotten, (unsigned long long)interrupts);
}
