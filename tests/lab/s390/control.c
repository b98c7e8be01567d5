// SPDX-License-Identifier: GPL-2.0-only
/*
 * The control line: cut into lines and words.
 */
#include "control.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "devices.h"
#include "machine.h"

#define LINE_MOST 1024
#define WORDS_MOST 8

static int control = -1;
static char received[LINE_MOST];
static size_t received_length;

void control_set_descriptor(int descriptor)
{
	control = descriptor;
}

void control_say(const char *format, ...)
{
	char line[LINE_MOST + 1];
	va_list arguments;

	va_start(arguments, format);
	int length = vsnprintf(line, LINE_MOST, format, arguments);
	va_end(arguments);
	if (control < 0 || length < 0)
		return;
	if (length >= LINE_MOST)
		length = LINE_MOST - 1;
	line[length++] = '\n';
	/* A reader that is gone, or does not read, misses it. */
	if (write(control, line, (size_t)length) != length)
		fprintf(stderr, "s390: nobody reads the control line\n");
}

static bool obey(char *line, char *answer, size_t size)
{
	char *words[WORDS_MOST], *rest = NULL;
	unsigned count = 0;

	for (char *word = strtok_r(line, " ", &rest); word && count < WORDS_MOST; word = strtok_r(NULL, " ", &rest))
		words[count++] = word;
	answer[0] = 0;
	if (count == 1 && !strcmp(words[0], "ipl")) {
		machine_wants(MACHINE_IPL);
		return true;
	}
	if (count == 1 && !strcmp(words[0], "end")) {
		machine_wants(MACHINE_END);
		return true;
	}
	return devices_command(words, count, answer, size);
}

bool control_run(const char *command)
{
	char line[LINE_MOST], answer[LINE_MOST];

	snprintf(line, sizeof line, "%s", command);
	bool good = obey(line, answer, sizeof answer);
	if (!good)
		fprintf(stderr, "s390: %s: %s\n", command, answer);
	return good;
}

bool control_read(void)
{
	ssize_t n = read(control, received + received_length, sizeof received - received_length);
	char *end;

	if (n <= 0)
		return false;
	received_length += (size_t)n;
	while ((end = memchr(received, '\n', received_length))) {
		char answer[LINE_MOST - 8];
		*end = 0;
		bool good = obey(received, answer, sizeof answer);
		control_say("%s %s", good ? "ok" : "error", answer);
		received_length -= (size_t)(end + 1 - received);
		memmove(received, end + 1, received_length);
	}
	return received_length < sizeof received;
}
