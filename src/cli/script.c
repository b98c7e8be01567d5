// SPDX-License-Identifier: BSD-2-Clause
/*
 * Reading a script, and its events in order.
 */
#include "cli/script.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/num.h"

#define LINES_MAX 1000u
#define WORDS_MAX 24u

struct line {
	char *words[WORDS_MAX]; /* in text: id, fault, then key=value */
	unsigned word_count;
	char *text;
	bool every, random;
	uint64_t from, to; /* at: from; every: the interval */
	uint64_t next; /* UINT64_MAX: never again */
	uint64_t random_state;
};

struct script {
	const struct control_option *options;
	struct line *lines;
	size_t count;
	uint64_t repeat, end; /* 0: not; UINT64_MAX: never */
};

/* splitmix64: each line has its own sequence, so that lines do not change each other. */
static uint64_t draw(struct line *line)
{
	uint64_t z = line->random_state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static uint64_t draw_between(struct line *line, uint64_t from, uint64_t to)
{
	return to <= from ? from : to - from == UINT64_MAX ? draw(line) : from + draw(line) % (to - from + 1);
}

/* "a..b", or "a" for both */
static bool parse_range(const char *text, bool time, uint64_t *from, uint64_t *to)
{
	char first[64];
	const char *dots = strstr(text, "..");
	size_t length = dots ? (size_t)(dots - text) : strlen(text);

	if (length >= sizeof first)
		return false;
	memcpy(first, text, length);
	first[length] = '\0';
	const char *both[] = { first, dots ? dots + 2 : first };
	uint64_t *out[] = { from, to };
	for (unsigned i = 0; i < 2; i++) {
		json_t *value = time ? NULL : control_value(CONTROL_SIZE, both[i]);
		if (time ? !control_time(both[i], out[i]) : !value)
			return false;
		if (value)
			*out[i] = (uint64_t)json_integer_value(value);
		json_decref(value);
	}
	return *from <= *to;
}

/* ---- reading ---- */

static int check_words(const struct script *script, const struct line *line, struct pintle_error *err)
{
	if (line->word_count < 2)
		return error_set(err, -EINVAL, "a device and a fault are needed");
	for (unsigned i = 2; i < line->word_count; i++) {
		char name[32];
		const char *equals = strchr(line->words[i], '=');
		size_t length = equals ? (size_t)(equals - line->words[i]) : sizeof name;
		if (length >= sizeof name)
			return error_set(err, -EINVAL, "\"%s\" is not of the form key=value", line->words[i]);
		memcpy(name, line->words[i], length);
		name[length] = '\0';
		const struct control_option *option = control_option_find(script->options, name);
		if (!option)
			return error_set(err, -EINVAL, "no fault takes \"%s\"", name);
		uint64_t from, to;
		bool is_number = option->kind == CONTROL_NUMBER || option->kind == CONTROL_SIZE;
		if (option->kind != CONTROL_TEXT && !parse_range(equals + 1, !is_number, &from, &to))
			return error_set(err, -EINVAL, "\"%s\" is not understood", line->words[i]);
	}
	return 0;
}

static int read_line(struct script *script, struct line *line, uint64_t seed, struct pintle_error *err)
{
	char *words[WORDS_MAX + 2], *save = NULL;
	unsigned count = 0;

	for (char *word = strtok_r(line->text, " \t\r\n", &save); word && count < ARRAY_SIZE(words); word = strtok_r(NULL, " \t\r\n", &save))
		words[count++] = word;
	if (count < 2 || count == ARRAY_SIZE(words))
		return error_set(err, -EINVAL, count < 2 ? "it lacks a time" : "it has too many words");
	uint64_t from, to;
	if (!parse_range(words[1], true, &from, &to))
		return error_set(err, -EINVAL, "\"%s\" is no time", words[1]);
	if (count == 2 && from == to && from && (!strcmp(words[0], "repeat") || !strcmp(words[0], "end"))) {
		*(words[0][0] == 'r' ? &script->repeat : &script->end) = from;
		line->next = UINT64_MAX;
		return 0;
	}
	line->every = !strcmp(words[0], "every");
	if (!line->every && strcmp(words[0], "at"))
		return error_set(err, -EINVAL, "it begins with \"%s\"; there are: at, every, repeat, end", words[0]);
	if (line->every ? !from : from != to)
		return error_set(err, -EINVAL, line->every ? "an interval is more than 0" : "at takes one time");
	line->random = count > 2 && !strcmp(words[2], "random");
	line->word_count = count - 2 - line->random;
	memcpy(line->words, words + 2 + line->random, line->word_count * sizeof(char *));
	line->from = from;
	line->to = to;
	line->random_state = seed * UINT64_C(0xd1342543de82ef95) + script->count;
	draw(line);
	line->next = line->every ? draw_between(line, from, to) : from;
	return check_words(script, line, err);
}

static int add_line(struct script *script, const char *text, uint64_t seed, struct pintle_error *err)
{
	size_t blank = strspn(text, " \t\r\n");

	if (!text[blank] || text[blank] == '#')
		return 0;
	if (script->count == LINES_MAX)
		return error_set(err, -E2BIG, "a script has at most %u lines", LINES_MAX);
	struct line *lines = reallocarray(script->lines, script->count + 1, sizeof *lines);
	if (!lines)
		return error_set(err, -ENOMEM, "no memory");
	script->lines = lines;
	struct line *line = &lines[script->count++];
	*line = (struct line){ .text = strdup(text) };
	if (!line->text)
		return error_set(err, -ENOMEM, "no memory");
	return read_line(script, line, seed, err);
}

int script_read(struct script **out, const char *path, uint64_t seed, const struct control_option *options, struct pintle_error *err)
{
	FILE *file = strcmp(path, "-") ? fopen(path, "re") : stdin;
	struct script *script = calloc(1, sizeof *script);
	char text[1024];
	int result = 0;

	*out = NULL;
	if (!file || !script) {
		result = error_errno(err, file ? -ENOMEM : -errno, "cannot read %s", path);
		goto free_script;
	}
	script->options = options;
	script->end = UINT64_MAX;
	for (unsigned number = 1; !result && fgets(text, sizeof text, file); number++) {
		result = strchr(text, '\n') || feof(file) ? add_line(script, text, seed, err) : error_set(err, -EINVAL, "it is too long");
		if (result < 0)
			error_prefix(err, "%s, line %u", path, number);
	}
	if (!result) {
		*out = script;
		script = NULL;
	}
free_script:
	if (file && file != stdin)
		fclose(file);
	script_free(script);
	return result;
}

void script_free(struct script *script)
{
	if (!script)
		return;
	for (size_t i = 0; i < script->count; i++)
		free(script->lines[i].text);
	free(script->lines);
	free(script);
}

/* ---- events ---- */

/* One of "a,b,c": by chance, or the first where nothing is left to chance. */
static void choose(struct line *line, const char *list, char *out, size_t size)
{
	size_t count = 1, chosen;

	for (const char *at = list; *at; at++)
		count += *at == ',';
	chosen = line->random ? (size_t)(draw(line) % count) : 0;
	while (chosen--)
		list = strchr(list, ',') + 1;
	snprintf(out, size, "%.*s", line->random ? (int)strcspn(list, ",") : (int)strlen(list), list);
}

static void add_text(char *text, size_t size, const char *word)
{
	size_t used = strlen(text);
	snprintf(text + used, size - used, "%s%s", used ? " " : "", word);
}

static void add_param(const struct script *script, struct line *line, const char *word, struct script_event *event)
{
	char name[32], text[128];
	const char *equals = strchr(word, '=');

	snprintf(name, sizeof name, "%.*s", (int)(equals - word), word);
	const struct control_option *option = control_option_find(script->options, name);
	json_t *value;
	uint64_t from = 0, to = 0;
	if (option->kind == CONTROL_TEXT) {
		value = control_value(CONTROL_TEXT, equals + 1);
		snprintf(text, sizeof text, "%s", word);
	} else {
		bool time = option->kind == CONTROL_TIME;
		parse_range(equals + 1, time, &from, &to); /* has been understood before: check_words */
		from = draw_between(line, from, to);
		value = time ? json_real((double)from / 1e9) : json_integer((json_int_t)from);
		snprintf(text, sizeof text, "%s=%llu%s", name, (unsigned long long)from, time ? "ns" : "");
	}
	json_object_set_new(event->params, name, value);
	add_text(event->text, sizeof event->text, text);
}

static void make_event(const struct script *script, struct line *line, struct script_event *event)
{
	char word[64];

	*event = (struct script_event){ .when = line->next, .params = json_object() };
	static const char *const names[] = { "id", "fault" };
	for (unsigned i = 0; i < 2; i++) {
		choose(line, line->words[i], word, sizeof word);
		json_object_set_new(event->params, names[i], json_string(word));
		add_text(event->text, sizeof event->text, word);
	}
	for (unsigned i = 2; i < line->word_count; i++)
		add_param(script, line, line->words[i], event);
}

bool script_next(struct script *script, struct script_event *event)
{
	struct line *first = NULL;

	for (size_t i = 0; i < script->count; i++)
		if (script->lines[i].next != UINT64_MAX && (!first || script->lines[i].next < first->next))
			first = &script->lines[i];
	if (!first || first->next > script->end)
		return false;
	make_event(script, first, event);
	if (first->every)
		first->next += draw_between(first, first->from, first->to);
	else
		first->next = script->repeat ? first->next + script->repeat : UINT64_MAX;
	return true;
}
