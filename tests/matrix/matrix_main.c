// SPDX-License-Identifier: BSD-2-Clause
/*
 * matrix PINTLE [OPTIONS]: runs sequences of lifecycle events, each in a process of its own. One that fails is printed, with its seed, made shorter and printed
 * again as a script. Exit status 0: passed, 1: failed, 2: not understood.
 */
#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "matrix.h"

static struct {
	const char *program, *variant, *script, *save;
	uint64_t seed;
	size_t events;
	double seconds;
	unsigned tries; /* runs of a candidate that has to fail in one of them */
	double shrink_seconds;
	bool no_shrink, print;
} o = { .variant = "", .seed = 0, .events = 200, .tries = 3, .shrink_seconds = 240 };

static bool quiet;
static double shrink_until;

/* In a process of its own: did it pass? */
static bool passes(const struct sequence *sequence)
{
	int status;

	fflush(NULL);
	pid_t pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (quiet && !freopen("/dev/null", "w", stderr))
			_exit(2);
		run_sequence(sequence);
		fflush(NULL);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		fprintf(stderr, "FAILED: the driver ended by signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

/* What fails only sometimes is given several chances to. */
static bool fails(const struct sequence *sequence)
{
	for (unsigned i = 0; i < o.tries && now_ms() < shrink_until; i++)
		if (!passes(sequence))
			return true;
	return false;
}

static void report(struct sequence *sequence)
{
	fprintf(stderr, "this sequence failed:\n");
	sequence_print(sequence, stderr);
	if (o.no_shrink)
		return;
	size_t before = sequence->count;
	quiet = true;
	shrink_until = now_ms() + o.shrink_seconds * 1e3;
	sequence_shrink(sequence, fails);
	quiet = false;
	fprintf(stderr, "made shorter, %zu of %zu steps still fail (run them with --script):\n", sequence->count, before);
	sequence_print(sequence, stderr);
	FILE *out = o.save ? fopen(o.save, "w") : NULL;
	if (out) {
		sequence_print(sequence, out);
		fclose(out);
	}
}

/* As many events as asked for, for as long as asked for, in runs of some hundred. */
static int run_seeds(void)
{
	double begin = now_ms();
	size_t done = 0;

	do {
		struct sequence s = { .seed = o.seed };
		if (!variant_parse(&s.variant, o.variant))
			return 2;
		if (!sequence_make(&s, o.seconds > 0 ? 300 : o.events))
			return 1;
		if (o.print) {
			sequence_print(&s, stdout);
			free(s.steps);
			return 0;
		}
		fprintf(stderr, "seed %llu: ", (unsigned long long)s.seed);
		if (!passes(&s)) {
			report(&s);
			free(s.steps);
			return 1;
		}
		done += s.count;
		free(s.steps);
		o.seed++;
	} while (now_ms() - begin < o.seconds * 1e3);
	printf("passed: %zu events\n", done);
	return 0;
}

static int run_script(void)
{
	struct sequence s;

	if (!sequence_read(&s, o.script)) {
		free(s.steps);
		return 2;
	}
	bool good = true;
	for (unsigned i = 0; good && i < o.tries; i++)
		good = passes(&s);
	if (good)
		printf("passed: %zu events, %u times\n", s.count, o.tries);
	free(s.steps);
	return good ? 0 : 1;
}

static int usage(void)
{
	fputs("usage: matrix PINTLE [--variant \"KEY=VALUE ...\"] [--seed N] [--events N] [--time S]   random events\n"
	      "       matrix PINTLE --script FILE [--tries N]                                        those of a script\n"
	      "  --no-shrink, --shrink-time S (240), --tries N (3), --save FILE   what becomes of a sequence that fails\n"
	      "  --print                      the sequence of the seed, without running it\n"
	      "  --patience MS (20000)        for what has to happen\n\nevents:\n",
	      stderr);
	for (const struct event *e = events; e->name; e++)
		fprintf(stderr, "  %-16s %s%s%s\n", e->name, e->row ? e->row : "", e->row ? ": " : "", e->text);
	return 2;
}

static const struct option options[] = {
	{ "variant", required_argument, NULL, 'v' },	 { "seed", required_argument, NULL, 's' },  { "events", required_argument, NULL, 'e' },
	{ "time", required_argument, NULL, 't' },	 { "script", required_argument, NULL, 'f' }, { "tries", required_argument, NULL, 'n' },
	{ "shrink-time", required_argument, NULL, 'x' }, { "save", required_argument, NULL, 'o' },  { "no-shrink", no_argument, NULL, 'k' },
	{ "print", no_argument, NULL, 'p' },		 { "patience", required_argument, NULL, 'w' }, { NULL, 0, NULL, 0 },
};

static bool take_option(int option)
{
	switch (option) {
	case 'v':
		o.variant = optarg;
		return true;
	case 's':
		o.seed = strtoull(optarg, NULL, 0);
		return true;
	case 'e':
		o.events = strtoul(optarg, NULL, 0);
		return true;
	case 't':
		o.seconds = atof(optarg);
		return true;
	case 'f':
		o.script = optarg;
		return true;
	case 'n':
		o.tries = (unsigned)strtoul(optarg, NULL, 0);
		return true;
	case 'x':
		o.shrink_seconds = atof(optarg);
		return true;
	case 'o':
		o.save = optarg;
		return true;
	case 'k':
		o.no_shrink = true;
		return true;
	case 'p':
		o.print = true;
		return true;
	case 'w':
		scenario.patience_ms = atoi(optarg);
		return true;
	default:
		return false;
	}
}

int main(int argc, char **argv)
{
	int option;

	scenario.patience_ms = 20000;
	o.seed = (uint64_t)(now_ms() * 1e3) & 0xffffff;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!take_option(option))
			return usage();
	if (optind != argc - 1)
		return usage();
	scenario.program = argv[optind];
	return o.script ? run_script() : run_seeds();
}
