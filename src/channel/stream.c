// SPDX-License-Identifier: BSD-2-Clause
/*
 * The data of a command: where the program says it lies, directly, by IDAWs of either format or by MIDAWs, over as many CCWs as data chaining makes of it
 * ("Channel Indirect Data Addressing", "Modified CCW Indirect Data Addressing"). Address words are fetched when they are needed, each into a copy.
 */
#include <errno.h>

#include "channel/channel.h"

#define MIDAW_LAST 0x80u
#define MIDAW_SKIP 0x40u
#define MIDAW_RESERVED_FLAGS 0x1fu /* bit 2 only says how the data may be transferred */
#define PAGE 4096u

static uint8_t check_key(const struct subchannel *subchannel, uint64_t address, uint64_t length, bool store)
{
	const struct channel_host *host = subchannel->host;
	uint8_t key = (uint8_t)((subchannel->run_orb & SCSW_KEY_MASK) >> 24); /* in the left half, as in a storage key */
	bool allowed = !key || !host->key_allows || host->key_allows(host->context, address, length, key, store);
	return allowed ? 0 : CSTAT_PROTECTION_CHECK;
}

static uint8_t check_of(int result)
{
	return !result ? 0 : result == -EACCES ? CSTAT_PROTECTION_CHECK : CSTAT_PROGRAM_CHECK;
}

uint8_t channel_fetch(struct subchannel *subchannel, uint64_t address, void *buffer, uint32_t length)
{
	if (!range_within(address, length, subchannel->host->memory.guest.size))
		return CSTAT_PROGRAM_CHECK;
	uint8_t check = check_key(subchannel, address, length, false);
	return check ? check : check_of(channel_memory_read(&subchannel->host->memory, address, buffer, length));
}

static void stream_use(struct channel_stream *stream, const struct ccw *ccw)
{
	stream->now = *ccw;
	stream->at = 0;
	stream->looked = false;
	stream->list_index = stream->list_base = 0;
	stream->midaw_count = 0;
}

void stream_begin(struct channel_stream *stream, const struct ccw *ccw)
{
	*stream = (struct channel_stream){ .first = *ccw };
	stream_use(stream, ccw);
}

/* A piece of memory that the next bytes are in. */
struct piece {
	uint64_t address;
	uint32_t length;
	bool skip;
};

static uint8_t fetch_idaw(struct subchannel *subchannel, const struct channel_stream *stream, uint32_t index, uint64_t *word)
{
	bool wide = subchannel->run_orb & ORB_IDAW_64;
	uint64_t at = (uint64_t)stream->now.data + (uint64_t)index * (wide ? 8 : 4);
	uint8_t bytes[8];

	uint8_t check = channel_fetch(subchannel, at, bytes, wide ? 8 : 4);
	if (check)
		return check;
	*word = wide ? load_be64(bytes) : load_be32(bytes);
	/* Format 1: bit 0 is zero. */
	return !wide && *word >> 31 ? CSTAT_PROGRAM_CHECK : 0;
}

static uint8_t piece_by_idaw(struct subchannel *subchannel, struct channel_stream *stream, struct piece *piece)
{
	bool wide = subchannel->run_orb & ORB_IDAW_64;
	uint32_t block = wide && !(subchannel->run_orb & ORB_IDAW_2K) ? 4096 : 2048;
	uint8_t check = 0;

	if (!stream->looked) {
		check = is_aligned(stream->now.data, wide ? 8 : 4) ? fetch_idaw(subchannel, stream, 0, &stream->first_word) : CSTAT_PROGRAM_CHECK;
		stream->looked = !check;
		if (check)
			return check;
	}
	uint32_t first = block - (uint32_t)(stream->first_word & (block - 1));
	if (stream->at < first) {
		*piece = (struct piece){ .address = stream->first_word + stream->at, .length = first - stream->at };
		return 0;
	}
	uint32_t beyond = stream->at - first, inside = beyond % block;
	uint64_t word;
	check = fetch_idaw(subchannel, stream, 1 + beyond / block, &word);
	/* All but the first designate the beginning of a block. */
	if (!check && !is_aligned(word, block))
		check = CSTAT_PROGRAM_CHECK;
	if (!check)
		*piece = (struct piece){ .address = word + inside, .length = block - inside };
	return check;
}

static uint8_t fetch_midaw(struct subchannel *subchannel, struct channel_stream *stream)
{
	uint64_t at = (uint64_t)stream->now.data + (uint64_t)stream->list_index * 16;
	uint8_t bytes[16];

	/* The list does not cross a page. */
	if (!is_aligned(stream->now.data, 16) || align_down(at, PAGE) != align_down(stream->now.data, PAGE))
		return CSTAT_PROGRAM_CHECK;
	uint8_t check = channel_fetch(subchannel, at, bytes, sizeof bytes);
	if (check)
		return check;
	stream->midaw_flags = bytes[5];
	stream->midaw_count = load_be16(bytes + 6);
	stream->midaw_address = load_be64(bytes + 8);
	uint32_t end = stream->list_base + stream->midaw_count;
	bool last = stream->midaw_flags & MIDAW_LAST;
	/* "Invalid MIDAW": reserved bits, no bytes, data across a page, and a last one that is not where the CCW's count says. */
	bool wrong = load_be32(bytes) || bytes[4] || (stream->midaw_flags & MIDAW_RESERVED_FLAGS) || !stream->midaw_count || end > stream->now.count ||
		     last != (end == stream->now.count) || (stream->midaw_address & (PAGE - 1)) + stream->midaw_count > PAGE;
	return wrong ? CSTAT_PROGRAM_CHECK : 0;
}

static uint8_t piece_by_midaw(struct subchannel *subchannel, struct channel_stream *stream, struct piece *piece)
{
	while (!stream->looked || stream->at >= stream->list_base + stream->midaw_count) {
		if (stream->looked) {
			stream->list_base += stream->midaw_count;
			stream->list_index++;
		}
		uint8_t check = fetch_midaw(subchannel, stream);
		if (check)
			return check;
		stream->looked = true;
	}
	uint32_t inside = stream->at - stream->list_base;
	*piece = (struct piece){
		.address = stream->midaw_address + inside, .length = stream->midaw_count - inside, .skip = stream->midaw_flags & MIDAW_SKIP
	};
	return 0;
}

/* "Address-Limit Checking" */
static bool breaks_limit(const struct subchannel *subchannel, const struct piece *piece)
{
	if (!(subchannel->run_orb & ORB_ADDRESS_LIMIT))
		return false;
	uint64_t last = piece->address + piece->length - 1;
	return (subchannel->run_limit == PMCW_LIMIT_ABOVE && piece->address < subchannel->address_limit) ||
	       (subchannel->run_limit == PMCW_LIMIT_BELOW && last >= subchannel->address_limit);
}

static uint8_t find_piece(struct subchannel *subchannel, struct channel_stream *stream, uint32_t wanted, struct piece *piece)
{
	uint8_t check = 0;

	if (stream->now.flags & CCW_MIDAW)
		check = piece_by_midaw(subchannel, stream, piece);
	else if (stream->now.flags & CCW_INDIRECT)
		check = piece_by_idaw(subchannel, stream, piece);
	else
		*piece = (struct piece){ .address = (uint64_t)stream->now.data + stream->at, .length = UINT32_MAX };
	if (check)
		return check;
	piece->length = min_of(piece->length, wanted);
	piece->length = min_of(piece->length, (uint32_t)stream->now.count - stream->at);
	piece->skip = piece->skip || (stream->now.flags & CCW_SKIP);
	if (!(subchannel->run_orb & SCSW_FORMAT_1) && !(stream->now.flags & CCW_INDIRECT) && piece->address + piece->length > 0x1000000)
		return CSTAT_PROGRAM_CHECK; /* 24-bit addresses do not wrap */
	return breaks_limit(subchannel, piece) ? CSTAT_PROGRAM_CHECK : 0;
}

/* Exactly one of to and from is set, or neither: bytes are counted only. */
static uint8_t move_piece(struct subchannel *subchannel, const struct piece *piece, void *to, const void *from)
{
	struct channel_memory *memory = &subchannel->host->memory;
	bool store = from;

	/* Skipping suppresses only the transfer of data to memory. */
	if ((piece->skip && !to) || (!to && !from))
		return 0;
	if (!range_within(piece->address, piece->length, memory->guest.size))
		return CSTAT_PROGRAM_CHECK;
	uint8_t check = check_key(subchannel, piece->address, piece->length, store);
	if (check)
		return check;
	return check_of(store ? channel_memory_write(memory, piece->address, from, piece->length) :
				channel_memory_read(memory, piece->address, to, piece->length));
}

/* Data chaining: the next CCW, whose command code does not matter. */
static bool chain(struct subchannel *subchannel, struct channel_stream *stream)
{
	struct ccw ccw;

	if (!(stream->now.flags & CCW_CHAIN_DATA))
		return false;
	if (!program_fetch(subchannel, stream->now.address + 8, true, &ccw, &stream->check))
		return false;
	stream_use(stream, &ccw);
	if (ccw.flags & CCW_PCI)
		program_intermediate(subchannel, 0, CSTAT_PCI);
	return true;
}

static uint32_t transfer(struct channel_command *command, void *to, const void *from, uint32_t length)
{
	struct channel_stream *stream = &command->stream;
	struct subchannel *subchannel = command->subchannel;
	uint32_t moved = 0;

	while (moved < length && !stream->check) {
		struct piece piece = { 0 };
		if (stream->at == stream->now.count) {
			if (!chain(subchannel, stream))
				break;
			continue;
		}
		stream->check = find_piece(subchannel, stream, length - moved, &piece);
		if (!stream->check)
			stream->check = move_piece(subchannel, &piece, to ? (uint8_t *)to + moved : NULL, from ? (const uint8_t *)from + moved : NULL);
		if (stream->check)
			break;
		moved += piece.length;
		stream->at += piece.length;
		stream->moved = true;
	}
	return moved;
}

uint32_t channel_get(struct channel_command *command, void *buffer, uint32_t length)
{
	return transfer(command, buffer, NULL, length);
}

uint32_t channel_put(struct channel_command *command, const void *buffer, uint32_t length)
{
	return transfer(command, NULL, buffer, length);
}

uint32_t channel_advance(struct channel_command *command, uint32_t length)
{
	return transfer(command, NULL, NULL, length);
}

void channel_rewind(struct channel_command *command)
{
	uint8_t check = command->stream.check;
	struct ccw first = command->stream.first;
	stream_begin(&command->stream, &first);
	command->stream.check = check;
}
