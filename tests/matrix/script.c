// SPDX-License-Identifier: BSD-2-Clause
/*
 * Sequences as text, and made from a seed.
 *
 * A script has one line "variant key=value ...", one "seed N", and a line for each step: function, load before it, event, arguments.
 */
#include "matrix.h"

#define AFTER_MAX 3000u /* microseconds of load before a step */

static const struct {
	const char *name;
	size_t offset;
	unsigned least, most, usual;
} variant_keys[] = {
#define KEY(name, member, least, most, usual) { name, offsetof(struct variant, member), least, most, usual }
	KEY("packed", packed, 0, 1, 0),
	KEY("in-order", in_order, 0, 1, 0),
	KEY("queues", queues, 1, MATRIX_QUEUES, 2),
	KEY("functions", functions, 1, MATRIX_FUNCTIONS, 1),
	KEY("io-threads", io_threads, 1, 8, 1),
	KEY("polling", polling, 0, 1, 0),
	KEY("sleeping", sleeping, 0, 1, 1),
	KEY("lenient", lenient, 0, 1, 0),
	KEY("memory", memory, 0, 1, 0),
	KEY("zero-copy", zero_copy, 0, 1, 0),
	KEY("delay", delay_ms, 0, 20000, 0),
	KEY("kick-fd", kick_fd, 0, 1, 0),
	KEY("table-in-bar", table_in_bar, 0, 1, 0),
	KEY("by-message", by_message, 0, 1, 0),
#undef KEY
};

static unsigned *place(struct variant *v, size_t key)
{
	return (unsigned *)((char *)v + variant_keys[key].offset);
}

static bool set_key(struct variant *v, const char *word)
{
	const char *equals = strchr(word, '=');
	char *end;

	for (size_t i = 0; equals && i < ARRAY_SIZE(variant_keys); i++) {
		if (strlen(variant_keys[i].name) != (size_t)(equals - word) || strncmp(variant_keys[i].name, word, (size_t)(equals - word)))
			continue;
		unsigned long value = strtoul(equals + 1, &end, 10);
		if (end == equals + 1 || *end || value < variant_keys[i].least || value > variant_keys[i].most)
			break;
		*place(v, i) = (unsigned)value;
		return true;
	}
	fprintf(stderr, "matrix: \"%s\" is no key of a variant with its value\n", word);
	return false;
}

bool variant_parse(struct variant *variant, const char *words)
{
	char copy[1024], *rest = copy;
	const char *word;

	for (size_t i = 0; i < ARRAY_SIZE(variant_keys); i++)
		*place(variant, i) = variant_keys[i].usual;
	snprintf(copy, sizeof copy, "%s", words);
	while ((word = strsep(&rest, " \t\n")))
		if (*word && !set_key(variant, word))
			return false;
	return true;
}

void variant_print(const struct variant *variant, FILE *out)
{
	struct variant v = *variant;

	for (size_t i = 0; i < ARRAY_SIZE(variant_keys); i++)
		fprintf(out, "%s%s=%u", i ? " " : "", variant_keys[i].name, *place(&v, i));
}

/* ---- from a seed ---- */

static const struct event *draw(uint64_t *state)
{
	unsigned total = 0;

	for (const struct event *e = events; e->name; e++)
		total += e->weight;
	unsigned at = (unsigned)(random_next(state) >> 20) % total;
	for (const struct event *e = events;; e++) {
		if (at < e->weight)
			return e;
		at -= e->weight;
	}
}

bool sequence_make(struct sequence *sequence, size_t count)
{
	uint64_t state = sequence->seed * 2 + 1;

	for (unsigned i = 0; i < 8; i++)
		random_next(&state);
	sequence->steps = calloc(count ? count : 1, sizeof *sequence->steps);
	if (!sequence->steps)
		return false;
	sequence->count = count;
	for (size_t i = 0; i < count; i++) {
		struct step *step = &sequence->steps[i];
		step->function = (unsigned)(random_next(&state) >> 20) % sequence->variant.functions;
		step->after_us = random_next(&state) >> 20 & 3 ? (unsigned)(random_next(&state) >> 20) % AFTER_MAX : 0;
		step->event = draw(&state);
		for (unsigned k = 0; k < MATRIX_ARGS && step->event->args[k].name; k++) {
			unsigned least = step->event->args[k].least, most = step->event->args[k].most;
			step->args[k] = least + (unsigned)(random_next(&state) >> 20) % (most - least + 1);
		}
	}
	return true;
}

/* ---- as text ---- */

void sequence_print(const struct sequence *sequence, FILE *out)
{
	fputs("variant ", out);
	variant_print(&sequence->variant, out);
	fprintf(out, "\nseed %llu\n", (unsigned long long)sequence->seed);
	for (size_t i = 0; i < sequence->count; i++) {
		const struct step *step = &sequence->steps[i];
		fprintf(out, "d%u after %u us: %s", step->function, step->after_us, step->event->name);
		for (unsigned k = 0; k < MATRIX_ARGS && step->event->args[k].name; k++)
			fprintf(out, " %s=%u", step->event->args[k].name, step->args[k]);
		fputc('\n', out);
	}
}

static bool read_args(struct step *step, char *rest)
{
	const char *word;

	for (unsigned k = 0; k < MATRIX_ARGS && step->event->args[k].name; k++)
		step->args[k] = step->event->args[k].least;
	while ((word = strsep(&rest, " \t\n"))) {
		const char *equals = strchr(word, '=');
		bool found = !*word;
		for (unsigned k = 0; equals && k < MATRIX_ARGS && step->event->args[k].name; k++) {
			size_t length = strlen(step->event->args[k].name);
			if (length != (size_t)(equals - word) || strncmp(step->event->args[k].name, word, length))
				continue;
			step->args[k] = (unsigned)strtoul(equals + 1, NULL, 10);
			found = step->args[k] >= step->event->args[k].least && step->args[k] <= step->event->args[k].most;
		}
		if (!found)
			return false;
	}
	return true;
}

static bool read_step(struct sequence *sequence, char *line)
{
	struct step step = { 0 };
	char name[64];
	int used = 0;

	if (sscanf(line, "d%u after %u us: %63s%n", &step.function, &step.after_us, name, &used) != 3)
		return false;
	step.event = event_find(name);
	if (!step.event || step.function >= MATRIX_FUNCTIONS || !read_args(&step, line + used))
		return false;
	struct step *more = realloc(sequence->steps, (sequence->count + 1) * sizeof *more);
	if (!more)
		return false;
	sequence->steps = more;
	more[sequence->count++] = step;
	return true;
}

static bool read_line(struct sequence *sequence, char *line)
{
	unsigned long long seed;

	if (*line == '#' || *line == '\n' || !*line)
		return true;
	if (!strncmp(line, "variant ", 8))
		return variant_parse(&sequence->variant, line + 8);
	if (sscanf(line, "seed %llu", &seed) == 1) {
		sequence->seed = seed;
		return true;
	}
	return read_step(sequence, line);
}

bool sequence_read(struct sequence *sequence, const char *path)
{
	char line[1024];
	FILE *file = fopen(path, "r");
	bool good = file;

	*sequence = (struct sequence){ .seed = 1 };
	variant_parse(&sequence->variant, "");
	if (!file)
		fprintf(stderr, "matrix: cannot read %s: %s\n", path, strerror(errno));
	for (unsigned n = 1; good && fgets(line, sizeof line, file); n++) {
		char copy[1024];
		memcpy(copy, line, sizeof copy);
		good = read_line(sequence, copy);
		if (!good)
			fprintf(stderr, "matrix: %s:%u is not understood: %s", path, n, line);
	}
	if (file)
		fclose(file);
	return good;
}
