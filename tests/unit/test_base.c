// SPDX-License-Identifier: BSD-2-Clause
/*
 * Errors, logging and its rate limit, arithmetic, lists, lock ranks, mutations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mutate.h"
#include "base/num.h"
#include "base/rank.h"

/* ---- errors ---- */

static void error_is_set(void **state)
{
	struct pintle_error err = { 0 };
	(void)state;

	assert_int_equal(error_set(&err, -EINVAL, "queue %d is odd", 3), -EINVAL);
	assert_int_equal(err.code, -EINVAL);
	assert_string_equal(err.text, "queue 3 is odd");
	assert_int_equal(error_prefix(&err, "device %s", "d0"), -EINVAL);
	assert_string_equal(err.text, "device d0: queue 3 is odd");
	assert_int_equal(error_errno(&err, -ENOENT, "cannot open %s", "x"), -ENOENT);
	assert_string_equal(err.text, "cannot open x: No such file or directory");
	/* its own text as an argument */
	error_set(&err, -EIO, "first, %s", err.text);
	assert_string_equal(err.text, "first, cannot open x: No such file or directory");
}

static void error_may_be_null(void **state)
{
	(void)state;
	assert_int_equal(error_set(NULL, -EINVAL, "x"), -EINVAL);
	assert_int_equal(error_errno(NULL, -EIO, "x"), -EIO);
	assert_int_equal(error_prefix(NULL, "x"), 0);
}

static void error_is_cut(void **state)
{
	struct pintle_error err = { 0 };
	char text[1000];
	(void)state;

	memset(text, 'a', sizeof text - 1);
	text[sizeof text - 1] = 0;
	error_set(&err, -EINVAL, "%s", text);
	assert_int_equal(strlen(err.text), sizeof err.text - 1);
	error_prefix(&err, "b");
	assert_int_equal(strlen(err.text), sizeof err.text - 1);
	assert_memory_equal(err.text, "b: aaa", 6);
	error_prefix(&err, "%s", text);
	assert_int_equal(strlen(err.text), sizeof err.text - 1);
	/* the reason keeps its room */
	error_errno(&err, -EIO, "%s", text);
	assert_int_equal(strlen(err.text), sizeof err.text - 1);
	assert_string_equal(err.text + strlen(err.text) - 20, ": Input/output error");
}

static void error_is_one_line(void **state)
{
	struct pintle_error err = { 0 };
	(void)state;

	error_set(&err, -EINVAL, "a\nb\033[1mc\177\303\244");
	assert_string_equal(err.text, "a?b?[1mc?\303\244");
}

/* ---- logging ---- */

struct seen {
	unsigned lines;
	enum log_level level;
	char source[64];
	char text[1024];
};

static void record(void *context, enum log_level level, const char *source, const char *text)
{
	struct seen *seen = context;
	seen->lines++;
	seen->level = level;
	snprintf(seen->source, sizeof seen->source, "%s", source);
	snprintf(seen->text, sizeof seen->text, "%s", text);
}

static void log_goes_to_sink(void **state)
{
	struct seen seen = { 0 };
	struct log_source source;
	(void)state;

	log_set_sink(record, &seen);
	log_source_init(&source, "disk%d\n", 1);
	errno = ENOTTY;
	log_warning(&source, "a %d\nb", 2);
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(seen.lines, 1);
	assert_int_equal(seen.level, LOG_LEVEL_WARNING);
	assert_string_equal(seen.source, "disk1?");
	assert_string_equal(seen.text, "a 2?b");
	log_debug(&source, "not shown");
	log_line(LOG_LEVEL_DEBUG, &source, "not shown");
	assert_false(log_limited(LOG_LEVEL_DEBUG, &source, "not shown"));
	assert_int_equal(seen.lines, 1);
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug(&source, "shown");
	assert_int_equal(seen.lines, 2);
	log_set_level(LOG_LEVEL_INFO);
	log_info(NULL, "nobody's");
	assert_string_equal(seen.source, "");
	log_set_sink(NULL, NULL);
}

/* Runs fn with standard error in a pipe and returns what was written, at most size - 1 bytes. */
static void capture(void (*fn)(void), char *out, size_t size)
{
	int ends[2], before = dup(STDERR_FILENO);
	size_t used = 0;
	ssize_t n;

	assert_int_equal(pipe(ends), 0);
	assert_true(fcntl(ends[1], F_SETPIPE_SZ, 1 << 20) > 0);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	fn();
	dup2(before, STDERR_FILENO);
	close(before);
	while (used < size - 1 && (n = read(ends[0], out + used, size - 1 - used)) > 0)
		used += (size_t)n;
	out[used] = 0;
	close(ends[0]);
}

static void some_lines(void)
{
	struct log_source source;
	char text[3000];

	log_source_init(&source, "disk");
	log_error(&source, "broken");
	log_info(NULL, "hello");
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = 0;
	log_info(&source, "%s", text);
}

static void log_goes_to_standard_error(void **state)
{
	char out[5000];
	(void)state;

	capture(some_lines, out, sizeof out);
	const char *expected = "pintle: error: disk: broken\npintle: info: hello\npintle: info: disk: xxxx";
	assert_memory_equal(out, expected, strlen(expected));
	/* the long one is cut, and still a line */
	assert_true(strlen(out) < 1000);
	assert_int_equal(out[strlen(out) - 1], '\n');
}

#define WRITERS 4
#define LINES_EACH 300

static void *write_lines(void *argument)
{
	char fill = (char)('a' + (int)(intptr_t)argument), text[200];

	memset(text, fill, sizeof text - 1);
	text[sizeof text - 1] = 0;
	for (int i = 0; i < LINES_EACH; i++)
		log_error(NULL, "%s", text);
	return NULL;
}

static void many_writers(void)
{
	pthread_t threads[WRITERS];

	for (intptr_t i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_lines, (void *)i), 0);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
}

static void log_lines_do_not_mix(void **state)
{
	static char out[WRITERS * LINES_EACH * 300];
	unsigned lines = 0;
	(void)state;

	capture(many_writers, out, sizeof out);
	for (char *line = strtok(out, "\n"); line; line = strtok(NULL, "\n"), lines++) {
		const char *prefix = "pintle: error: ";
		size_t skip = strlen(prefix);
		assert_int_equal(strlen(line), skip + 199);
		assert_memory_equal(line, prefix, skip);
		for (size_t i = skip; line[i]; i++)
			assert_int_equal(line[i], line[skip]);
	}
	assert_int_equal(lines, WRITERS * LINES_EACH);
}

/* As if this much time had passed: the bucket is a time. */
static void let_pass(struct log_source *source, uint64_t ns)
{
	atomic_fetch_sub(&source->tokens_at, ns);
}

static void log_is_limited(void **state)
{
	struct seen seen = { 0 };
	struct log_source source, other;
	unsigned out = 0;
	(void)state;

	log_set_sink(record, &seen);
	log_source_init(&source, "a");
	log_source_init(&other, "b");
	for (int i = 0; i < 1000; i++)
		out += log_limited(LOG_LEVEL_WARNING, &source, "again %d", i);
	/* a slow machine may let one more through */
	assert_in_range(out, LOG_BURST, LOG_BURST + 1);
	assert_int_equal(seen.lines, out);
	assert_int_equal(source.suppressed, 1000 - out);
	assert_true(log_limited(LOG_LEVEL_WARNING, &other, "another's bucket is its own"));

	/* half a second is worth one line, and that says what was left out */
	let_pass(&source, UINT64_C(1000000000) / LOG_PER_SECOND);
	assert_true(log_limited(LOG_LEVEL_WARNING, &source, "later"));
	char expected[64];
	snprintf(expected, sizeof expected, "later (%u lines left out before)", 1000 - out);
	assert_string_equal(seen.text, expected);
	assert_int_equal(source.suppressed, 0);

	/* a long time is worth a full bucket, not more */
	atomic_store(&source.tokens_at, 0);
	out = 0;
	for (int i = 0; i < 1000; i++)
		out += log_limited(LOG_LEVEL_WARNING, &source, "again %d", i);
	assert_in_range(out, LOG_BURST, LOG_BURST + 1);
	/* an unlimited line says it as well */
	log_info(&source, "now");
	assert_non_null(strstr(seen.text, "left out before"));
	log_set_sink(NULL, NULL);
}

static struct log_source shared_source;
static _Atomic unsigned shared_out;

static void count_line(void *context, enum log_level level, const char *source, const char *text)
{
	(void)context, (void)level, (void)source, (void)text;
	shared_out++;
}

static void *spend(void *argument)
{
	(void)argument;
	for (int i = 0; i < 20000; i++)
		log_limited(LOG_LEVEL_WARNING, &shared_source, "x");
	return NULL;
}

static void log_limit_holds_across_threads(void **state)
{
	pthread_t threads[WRITERS];
	(void)state;

	log_set_sink(count_line, NULL);
	log_source_init(&shared_source, "shared");
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	uint64_t begin = (uint64_t)time.tv_sec;
	for (int i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, spend, NULL), 0);
	for (int i = 0; i < WRITERS; i++)
		pthread_join(threads[i], NULL);
	clock_gettime(CLOCK_MONOTONIC, &time);
	uint64_t seconds = (uint64_t)time.tv_sec - begin + 1;
	assert_in_range(shared_out, LOG_BURST, LOG_BURST + seconds * LOG_PER_SECOND);
	log_set_sink(NULL, NULL);
}

/* ---- arithmetic ---- */

static void arithmetic(void **state)
{
	uint64_t r;
	uint8_t bytes[9] = { 0 };
	(void)state;

	assert_false(add_overflows_u64(UINT64_MAX - 1, 1, &r));
	assert_true(r == UINT64_MAX);
	assert_true(add_overflows_u64(UINT64_MAX, 1, &r));
	assert_false(mul_overflows_u64(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &r));
	assert_true(mul_overflows_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &r));

	assert_true(range_within(0, 0, 0));
	assert_true(range_within(4, 0, 4));
	assert_true(range_within(0, 4, 4));
	assert_false(range_within(1, 4, 4));
	assert_false(range_within(5, 0, 4));
	assert_false(range_within(UINT64_MAX, 2, 4));
	assert_false(range_within(2, UINT64_MAX, 4));

	assert_true(ranges_overlap(0, 2, 1, 1));
	assert_false(ranges_overlap(0, 1, 1, 1));
	assert_false(ranges_overlap(1, 1, 0, 1));
	assert_true(ranges_overlap(0, UINT64_MAX, 5, 1));
	assert_false(ranges_overlap(3, 0, 0, 10));
	assert_false(ranges_overlap(0, 10, 3, 0));
	assert_true(ranges_overlap(UINT64_MAX, 1, UINT64_MAX - 3, 4));

	assert_true(is_power_of_two(1));
	assert_true(is_power_of_two(UINT64_C(1) << 63));
	assert_false(is_power_of_two(0));
	assert_false(is_power_of_two(6));
	assert_true(align_down(4097, 4096) == 4096);
	assert_true(align_up(4097, 4096) == 8192);
	assert_true(align_up(4096, 4096) == 4096);
	assert_true(is_aligned(8192, 4096));
	assert_false(is_aligned(8193, 4096));

	store_le32(bytes + 1, 0x11223344);
	assert_int_equal(bytes[1], 0x44);
	assert_int_equal(bytes[4], 0x11);
	assert_int_equal(load_le32(bytes + 1), 0x11223344);
	assert_int_equal(load_le16(bytes + 1), 0x3344);
	store_le16(bytes + 1, 0xabcd);
	assert_int_equal(load_le16(bytes + 1), 0xabcd);
	store_le64(bytes + 1, UINT64_C(0x0102030405060708));
	assert_int_equal(bytes[1], 8);
	assert_true(load_le64(bytes + 1) == UINT64_C(0x0102030405060708));
}

/* ---- lists ---- */

struct item {
	int value;
	struct list link;
};

static int list_value(struct list *link)
{
	return list_entry(link, struct item, link)->value;
}

static void lists(void **state)
{
	struct list head, other;
	struct item items[5];
	int sum = 0;
	(void)state;

	list_init(&head);
	list_init(&other);
	assert_true(list_empty(&head));
	assert_null(list_pop(&head));
	for (int i = 0; i < 5; i++) {
		items[i].value = i;
		list_init(&items[i].link);
	}
	list_append(&head, &items[1].link);
	list_append(&head, &items[3].link);
	list_insert_before(&items[3].link, &items[2].link);
	list_prepend(&head, &items[0].link);
	list_append(&other, &items[4].link);
	list_splice(&head, &other);
	assert_true(list_empty(&other));
	list_splice(&head, &other);
	int expected = 0;
	list_for_each_safe(link, tmp, &head) {
		assert_int_equal(list_value(link), expected++);
		if (list_value(link) % 2)
			list_remove(link);
	}
	assert_int_equal(expected, 5);
	list_remove(&items[1].link); /* is in no list: harmless */
	list_for_each_safe(link, tmp, &head)
		sum += list_value(link);
	assert_int_equal(sum, 0 + 2 + 4);
	assert_int_equal(list_value(list_pop(&head)), 0);
	assert_int_equal(list_value(list_pop(&head)), 2);
	assert_int_equal(list_value(list_pop(&head)), 4);
	assert_true(list_empty(&head));
}

/* ---- lock ranks ---- */

static struct ranked_lock low = RANKED_LOCK(RANK_HELPERS), high = RANKED_LOCK(RANK_LOG);

static void take_in_order(void)
{
	ranked_lock(&low);
	ranked_lock(&high);
	ranked_unlock(&low); /* any order of release */
	ranked_unlock(&high);
	assert_no_lock();
	ranked_lock(&low);
	ranked_unlock(&low);
	assert_no_lock();
}

#ifndef NDEBUG
static struct ranked_lock low_too = RANKED_LOCK(RANK_HELPERS);

static void take_downwards(void)
{
	ranked_lock(&high);
	ranked_lock(&low);
}

static void take_two_of_a_rank(void)
{
	ranked_lock(&low);
	ranked_lock(&low_too);
}

static void take_below_after_release(void)
{
	ranked_lock(&low);
	ranked_lock(&high);
	ranked_unlock(&low);
	ranked_lock(&low_too);
}

static void hold_across_boundary(void)
{
	ranked_lock(&low);
	assert_no_lock();
}

static void release_unheld(void)
{
	ranked_unlock(&low);
}
#endif

/* The status of a child that runs fn; what it says does not reach the test's own output. */
static int in_child(void (*fn)(void))
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		int null = open("/dev/null", O_WRONLY);
		dup2(null, STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	return status;
}

static void ranks(void **state)
{
	(void)state;
	assert_int_equal(in_child(take_in_order), 0);
#ifdef NDEBUG
	skip();
#else
	static void (*const violations[])(void) = { take_downwards, take_two_of_a_rank, take_below_after_release,
						    hold_across_boundary, release_unheld };
	for (size_t i = 0; i < ARRAY_SIZE(violations); i++) {
		int status = in_child(violations[i]);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	}
#endif
}

/* ---- mutations ---- */

/* The program itself, started again: exits 0 if exactly law1.gate and law2.pending are on. */
static int report_mutations(void)
{
	for (int i = 0; i < MUTATION_COUNT; i++) {
		bool expected = i == MUTATE_LAW1_GATE || i == MUTATE_LAW2_PENDING;
		if (mutate((enum mutation)i) != expected)
			return 1;
	}
	return 0;
}

static const char *mutate_value;

static void start_again(void)
{
	setenv("PINTLE_MUTATE", mutate_value, 1);
	execl("/proc/self/exe", "test_base", "--mutations", (char *)NULL);
	_exit(99);
}

static int exit_with_mutations(const char *value)
{
	mutate_value = value;
	int status = in_child(start_again);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void mutations(void **state)
{
	(void)state;
	/* Without the build option there are none, whatever the environment says. */
#ifdef PINTLE_MUTATIONS
	assert_int_equal(exit_with_mutations("law1.gate,law2.pending"), 0);
	assert_int_equal(exit_with_mutations("law1.gate,law2.pending,,"), 0);
	assert_int_equal(exit_with_mutations("law1.gate"), 1);
	assert_int_equal(exit_with_mutations(""), 1);
	assert_int_equal(exit_with_mutations("law1.gat"), 2);
	assert_int_equal(exit_with_mutations("law1.gate,nonsense"), 2);
#else
	assert_int_equal(exit_with_mutations("law1.gate,law2.pending"), 1);
	assert_int_equal(exit_with_mutations("nonsense"), 1);
#endif
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--mutations"))
		return report_mutations();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_is_set),
		cmocka_unit_test(error_may_be_null),
		cmocka_unit_test(error_is_cut),
		cmocka_unit_test(error_is_one_line),
		cmocka_unit_test(log_goes_to_sink),
		cmocka_unit_test(log_goes_to_standard_error),
		cmocka_unit_test(log_lines_do_not_mix),
		cmocka_unit_test(log_is_limited),
		cmocka_unit_test(log_limit_holds_across_threads),
		cmocka_unit_test(arithmetic),
		cmocka_unit_test(lists),
		cmocka_unit_test(ranks),
		cmocka_unit_test(mutations),
	};
	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
