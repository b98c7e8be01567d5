// SPDX-License-Identifier: BSD-2-Clause
/*
 * See bindings.h. The record is one small text of fixed size, written by one call at its place: a process that dies leaves the old one or the new one.
 */
#include "road/xen/bindings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/num.h"
#include "road/xen/store.h"

#define RECORD_SIZE 1024
#define RECORD_HEAD "pintle-xen-1"
#define PIRQ_MOST 0xffff /* what the page has room for */
#define SCAN_FROM 4095 /* more pirqs than Xen gives a guest */
#define SCAN_TO 16

static const char *const modes[] = { [XEN_IRQ_NONE] = "none", [XEN_IRQ_INTX] = "INTx", [XEN_IRQ_MSI] = "MSI", [XEN_IRQ_MSIX] = "MSI-X" };

const char *xen_irq_mode_name(enum xen_irq_mode mode)
{
	return (unsigned)mode < ARRAY_SIZE(modes) ? modes[mode] : "?";
}

/* ---- the record ---- */

int xen_bindings_save(const struct xen_bindings *bindings)
{
	char text[RECORD_SIZE + 1];
	int length = snprintf(text, sizeof text, RECORD_HEAD " guest %u mode %u intent %u vectors %u count %u:", bindings->guest, (unsigned)bindings->mode, (unsigned)bindings->intent, bindings->vectors, bindings->count);

	for (unsigned i = 0; i < bindings->count; i++)
		length += snprintf(text + length, sizeof text - (size_t)length, " %d", bindings->pirqs[i]);
	length += snprintf(text + length, sizeof text - (size_t)length, " end");
	memset(text + length, ' ', RECORD_SIZE - (size_t)length);
	text[RECORD_SIZE - 1] = '\n';
	if (bindings->record < 0)
		return 0;
	ssize_t written = pwrite(bindings->record, text, RECORD_SIZE, 0);
	return written == RECORD_SIZE ? 0 : written < 0 ? -errno : -ENOSPC;
}

/* A word, and a number of digits after it. */
static bool number(const char **text, const char *word, uint32_t most, uint32_t *value)
{
	size_t length = strlen(word);

	if (strncmp(*text, word, length) != 0)
		return false;
	*text += length;
	length = strspn(*text, "0123456789");
	if (!xen_parse_number(*text, length, most, value))
		return false;
	*text += length;
	return true;
}

static bool parse(struct xen_bindings *bindings, const char *text)
{
	uint32_t guest, mode, intent, vectors, count, pirq;

	if (!number(&text, RECORD_HEAD " guest ", 0x7fef, &guest) || !number(&text, " mode ", XEN_IRQ_MSIX, &mode) || !number(&text, " intent ", 1, &intent) ||
	    !number(&text, " vectors ", XEN_VECTORS_MAX, &vectors) || !number(&text, " count ", XEN_VECTORS_MAX, &count) || *text++ != ':')
		return false;
	for (unsigned i = 0; i < count; i++) {
		if (!number(&text, " ", PIRQ_MOST, &pirq))
			return false;
		bindings->pirqs[i] = (int)pirq;
	}
	if (strncmp(text, " end ", 5) != 0)
		return false;
	bindings->guest = guest;
	bindings->mode = (enum xen_irq_mode)mode;
	bindings->intent = intent;
	bindings->count = count;
	bindings->vectors = vectors;
	return true;
}

int xen_bindings_open(struct xen_bindings *bindings, const char *folder, const char *address, struct pintle_error *err)
{
	char path[256], text[RECORD_SIZE + 1];

	memset(bindings, 0, sizeof *bindings);
	bindings->record = -1;
	if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, address) >= sizeof path)
		return error_set(err, -ENAMETOOLONG, "%s is too long a path for the records of bindings", folder);
	if (mkdir(folder, 0700) && errno != EEXIST)
		return error_errno(err, -errno, "cannot make %s, the folder for the records of bindings", folder);
	bindings->record = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (bindings->record < 0)
		return error_errno(err, -errno, "cannot open %s, the record of the bindings", path);
	ssize_t length = pread(bindings->record, text, RECORD_SIZE, 0);
	if (length < 0)
		return error_errno(err, -errno, "cannot read %s, the record of the bindings", path);
	text[length] = 0;
	if (length && !parse(bindings, text)) {
		int record = bindings->record;
		memset(bindings, 0, sizeof *bindings);
		bindings->record = record;
	}
	int r = xen_bindings_save(bindings);
	return r ? error_errno(err, r, "cannot write %s, the record of the bindings", path) : 0;
}

void xen_bindings_close(struct xen_bindings *bindings)
{
	if (bindings->record >= 0)
		close(bindings->record);
	bindings->record = -1;
}

/* ---- map, unmap ---- */

static bool gone(int result)
{
	/* No such pirq, no such domain: whoever took it, it is not bound any more. */
	return !result || result == -EINVAL || result == -ESRCH;
}

int xen_bindings_drop(struct xen_bindings *bindings, const struct xen_bind *bind)
{
	unsigned left = 0;

	for (unsigned i = bindings->count; i-- > 0;)
		if (!gone(bind->calls->unmap_pirq(bind->xen, bindings->guest, bindings->pirqs[i])))
			bindings->pirqs[XEN_VECTORS_MAX - ++left] = bindings->pirqs[i];
	memmove(bindings->pirqs, bindings->pirqs + XEN_VECTORS_MAX - left, left * sizeof *bindings->pirqs);
	bindings->count = left;
	if (!left) {
		bindings->mode = XEN_IRQ_NONE;
		bindings->vectors = 0;
	}
	int r = xen_bindings_save(bindings);
	return left ? -EBUSY : r;
}

/* One mapping: in the record before and, where it succeeded, after. */
static int map(struct xen_bindings *bindings, const struct xen_bind *bind, uint32_t entry, uint64_t table_base, unsigned count)
{
	int pirq = -1;

	bindings->intent = true;
	int r = xen_bindings_save(bindings);
	if (!r)
		r = bind->calls->map_msi(bind->xen, bindings->guest, bind->device, entry, table_base, count, &pirq);
	if (!r && (pirq <= 0 || pirq + (int)count - 1 > PIRQ_MOST)) {
		bind->calls->unmap_pirq(bind->xen, bindings->guest, pirq);
		r = -ERANGE;
	}
	if (!r)
		bindings->pirqs[bindings->count++] = pirq;
	bindings->intent = false;
	return r;
}

static int end(struct xen_bindings *bindings, const struct xen_bind *bind, enum xen_irq_mode mode, unsigned vectors, int result)
{
	if (!result) {
		bindings->mode = mode;
		bindings->vectors = vectors;
		result = xen_bindings_save(bindings);
	}
	if (result)
		xen_bindings_drop(bindings, bind);
	return result;
}

int xen_bindings_msix(struct xen_bindings *bindings, const struct xen_bind *bind, const uint16_t *entries, unsigned count)
{
	int r = bindings->count || bindings->intent || count > XEN_VECTORS_MAX ? -EBUSY : 0;

	if (r)
		return r;
	for (unsigned i = 0; !r && i < count; i++)
		r = map(bindings, bind, entries[i], bind->table_base, 1);
	return end(bindings, bind, XEN_IRQ_MSIX, count, r);
}

int xen_bindings_msi(struct xen_bindings *bindings, const struct xen_bind *bind, unsigned vectors)
{
	if (bindings->count || bindings->intent)
		return -EBUSY;
	return end(bindings, bind, XEN_IRQ_MSI, vectors, map(bindings, bind, 0, 0, vectors));
}

/* ---- what nobody saw ---- */

static bool contains(const int *known, unsigned count, int pirq)
{
	for (unsigned i = 0; i < count; i++)
		if (known[i] == pirq)
			return true;
	return false;
}

int xen_bindings_find_lost(struct xen_bindings *bindings, const struct xen_bind *bind, const int *known, unsigned count)
{
	int probe = -1, found = 0, last = SCAN_TO;

	if (!bindings->intent)
		return 0;
	/*
	 * One more mapping tells which is the highest free pirq now (Xen does not mind that the entry is mapped already). If it can be made, nothing at or below it is looked at: there the lines are, which may be
	 * anybody's.
	 */
	int r = bind->calls->map_msi(bind->xen, bindings->guest, bind->device, 0, bind->table_base, 1, &probe);
	if (!r) {
		last = probe + 1;
		bind->calls->unmap_pirq(bind->xen, bindings->guest, probe);
	}
	for (int pirq = SCAN_FROM; pirq >= last && !found; pirq--) {
		if (contains(known, count, pirq))
			continue;
		r = bind->calls->unmap_pirq(bind->xen, bindings->guest, pirq);
		if (r == -ESRCH)
			break;
		found = !r;
	}
	bindings->intent = false;
	r = xen_bindings_save(bindings);
	return r ? r : found;
}
