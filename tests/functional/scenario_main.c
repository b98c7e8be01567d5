// SPDX-License-Identifier: BSD-2-Clause
/*
 * scenario PINTLE NAME [OPTIONS]: runs one scenario of the laws against a server of its own. Exit status 0: passed, 1: failed (the reason is printed), 77:
 * skipped, 2: not understood.
 */
#include <getopt.h>

#include "rig.h"

static const struct scenario_entry *const tables[] = {
	gate_scenarios,	   interrupt_scenarios, reset_scenarios,  fence_scenarios,  client_scenarios,
	mapping_scenarios, message_scenarios,	config_scenarios, ending_scenarios, inject_scenarios, state_scenarios,
};

static const struct option options[] = {
	{ "packed", no_argument, NULL, 'p' },	    { "poll", no_argument, NULL, 'o' },	      { "kick-fd", no_argument, NULL, 'k' },
	{ "table-in-bar", no_argument, NULL, 't' }, { "lenient", no_argument, NULL, 'l' },    { "in-order", no_argument, NULL, 'i' },
	{ "seed", required_argument, NULL, 's' },   { "patience", required_argument, NULL, 'w' }, { NULL, 0, NULL, 0 },
};

static int usage(void)
{
	fputs("usage: scenario PINTLE NAME [--packed] [--poll] [--kick-fd] [--table-in-bar] [--lenient] [--in-order] [--seed N] [--patience MS]\n\n", stderr);
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct scenario_entry *e = tables[t]; e->name; e++)
			fprintf(stderr, "  %-22s %s\n", e->name, e->text);
	return 2;
}

static const struct scenario_entry *find(const char *name)
{
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct scenario_entry *e = tables[t]; e->name; e++)
			if (!strcmp(e->name, name))
				return e;
	return NULL;
}

int main(int argc, char **argv)
{
	int option;

	scenario.seed = (uint64_t)(now_ms() * 1e3) & 0xffffff;
	scenario.patience_ms = 20000;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p':
			scenario.packed = true;
			break;
		case 'o':
			scenario.polling = true;
			break;
		case 'k':
			scenario.kick_by_fd = true;
			break;
		case 't':
			scenario.table_in_bar = true;
			break;
		case 'l':
			scenario.lenient = true;
			break;
		case 'i':
			scenario.in_order = true;
			break;
		case 's':
			scenario.seed = strtoull(optarg, NULL, 0);
			break;
		case 'w':
			scenario.patience_ms = atoi(optarg);
			break;
		default:
			return usage();
		}
	}
	const struct scenario_entry *e = argc - optind == 2 ? find(argv[optind + 1]) : NULL;
	if (!e)
		return usage();
	scenario.program = argv[optind];
	e->run();
	puts("passed");
	return STATUS_PASSED;
}
