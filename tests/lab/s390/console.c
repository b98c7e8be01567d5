// SPDX-License-Identifier: GPL-2.0-only
/*
 * Output of the consoles. A message event holds vectors: message data block (1) > message object, general object, message text object (4) > self-describing text message: the
 * text in EBCDIC. As the kernel's drivers/s390/char/sclp.h lays them out.
 */
#include "console.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "ebcdic.h"
#include "memory.h"

#define EVENT_HEADER 6
/* Every vector: length (2), type (2). */
#define MDB_HEADER 12 /* length, type, tag, revision code */
#define MDB_TYPE 1
#define OBJECT_TEXT 4
#define TEXT_HEADER 10 /* length, type, line type flags, alarm control, reserved */
#define LINE_MOST 4096

static int log_descriptor = 2, shell_descriptor = 1;

void console_set_descriptors(int log, int shell)
{
	log_descriptor = log;
	shell_descriptor = shell;
}

/* All of it: the reader is a test that reads, or a file. */
static void put(int descriptor, const void *bytes, size_t length)
{
	const char *from = bytes;

	while (length) {
		ssize_t n = write(descriptor, from, length);
		if (n < 0 && errno == EAGAIN) {
			struct pollfd wait = { descriptor, POLLOUT, 0 };
			poll(&wait, 1, -1);
		} else if (n < 0 && errno != EINTR) {
			return; /* nobody reads any more */
		} else if (n > 0) {
			from += n;
			length -= (size_t)n;
		}
	}
}

void console_vt220(uint64_t at, uint64_t end)
{
	put(shell_descriptor, memory + at + EVENT_HEADER, end - at - EVENT_HEADER);
}

static void line(uint64_t at, uint64_t end)
{
	char text[LINE_MOST + 1];
	size_t length = 0;

	for (; at < end && length < LINE_MOST; at++)
		text[length++] = ebcdic_to_ascii(memory[at]);
	if (!length || text[length - 1] != '\n')
		text[length++] = '\n';
	put(log_descriptor, text, length);
}

void console_message(uint64_t at, uint64_t end)
{
	at += EVENT_HEADER;
	if (end - at < MDB_HEADER || load16(at + 2) != MDB_TYPE)
		return;
	for (at += MDB_HEADER; end - at >= 4;) {
		uint64_t length = load16(at);
		if (length < 4 || length > end - at)
			return;
		if (load16(at + 2) == OBJECT_TEXT && length >= TEXT_HEADER)
			line(at + TEXT_HEADER, at + length);
		at += length;
	}
}
