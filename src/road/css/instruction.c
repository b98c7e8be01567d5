// SPDX-License-Identifier: BSD-2-Clause
/*
 * The channel instructions (Principles of Operation, chapter 14). Operands have been fetched and are stored by the VMM; what is checked here is their contents.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "road/css/css.h"

/* ---- STORE and MODIFY SUBCHANNEL ---- */

/* lock held */
static void store_schib(const struct subchannel *subchannel, uint8_t *schib)
{
	memset(schib, 0, PINTLE_CSS_SCHIB_SIZE);
	store_be32(schib, subchannel->parameter);
	store_be16(schib + 4, subchannel->flags);
	store_be16(schib + 6, subchannel->device_number);
	schib[8] = subchannel->lpm;
	schib[10] = subchannel->lpum;
	schib[11] = subchannel->pim;
	store_be16(schib + 12, subchannel->measurement_index);
	schib[14] = subchannel->pom;
	schib[15] = subchannel->pam;
	/* Channel path identifiers (16 to 23): path 0 has identifier 0. */
	store_be32(schib + 24, subchannel->word6);
	store_be32(schib + 28, subchannel->scsw);
	store_be32(schib + 32, subchannel->ccw_address);
	schib[36] = subchannel->device_status;
	schib[37] = subchannel->subchannel_status;
	store_be16(schib + 38, subchannel->count);
}

int css_stsch(struct css *css, uint32_t schid, uint8_t *schib)
{
	struct subchannel *subchannel;
	int cc = css_find(css, schid, &subchannel);

	/* A number below the last one is a subchannel without a device. */
	if (cc == 3 && (schid & 0xffff) < atomic_load_explicit(&css->ends[schid >> 17 & 3], memory_order_acquire)) {
		memset(schib, 0, PINTLE_CSS_SCHIB_SIZE);
		return 0;
	}
	if (cc)
		return cc;
	ranked_lock(&css->host.lock);
	store_schib(subchannel, schib);
	ranked_unlock(&css->host.lock);
	return 0;
}

/* A disabling MSCH on its way: ends when the device has left guest memory alone. */
struct disable {
	struct loop_message message;
	struct life_wait wait;
	struct css *css;
	struct subchannel *subchannel;
	void (*done)(void *context, int cc);
	void *context;
};

static void disabled(struct life_wait *wait)
{
	struct disable *disable = container_of(wait, struct disable, wait);
	struct disable copy = *disable;

	free(disable);
	assert_no_lock();
	if (copy.done)
		copy.done(copy.context, 0);
	css_given_up(copy.css, copy.subchannel);
}

static void on_disable(struct loop_message *message)
{
	struct disable *disable = container_of(message, struct disable, message);
	struct channel_device *device = disable->subchannel->device;

	subchannel_sync_enabled(disable->subchannel);
	if (device)
		life_wait(device->life, &disable->wait, disabled);
	else
		disabled(&disable->wait);
}

static bool schib_is_wrong(const uint8_t *schib)
{
	uint16_t flags = load_be16(schib + 4);
	uint32_t word6 = load_be32(schib + 24);
	bool both = (word6 & 6) == 6; /* extended-measurement modes exclude each other */
	return (flags & PMCW_RESERVED) || (flags & PMCW_LIMIT_MASK) == PMCW_LIMIT_MASK || (word6 & PMCW_WORD6_RESERVED) || both;
}

/* lock held. Whether the enabled bit has changed. */
static bool modify(struct subchannel *subchannel, const uint8_t *schib)
{
	uint16_t flags = (uint16_t)((subchannel->flags & ~PMCW_MODIFIABLE) | (load_be16(schib + 4) & PMCW_MODIFIABLE));
	bool changed = (flags ^ subchannel->flags) & PMCW_ENABLED;

	subchannel->parameter = load_be32(schib);
	subchannel->flags = flags;
	subchannel->lpm = schib[8];
	subchannel->measurement_index = load_be16(schib + 12);
	subchannel->pom = schib[14];
	/* Extended measurement words are not provided: their mode stays off. */
	subchannel->word6 = load_be32(schib + 24) & PMCW_WORD6_MODIFIABLE & ~PMCW_EXTENDED_MEASUREMENT;
	if (changed)
		subchannel->enablings++;
	return changed;
}

int css_msch(struct css *css, uint32_t schid, const uint8_t *schib, void (*done)(void *context, int cc), void *context)
{
	struct subchannel *subchannel;
	bool disables = false;
	int cc = css_find(css, schid, &subchannel);

	if (!cc && schib_is_wrong(schib))
		return PINTLE_CSS_OPERAND;
	if (cc)
		return cc;
	struct disable *disable = calloc(1, sizeof *disable);
	if (!disable)
		return 2; /* busy: the guest tries again */
	ranked_lock(&css->host.lock);
	if (subchannel->scsw & SCSW_STATUS_PENDING)
		cc = 1;
	else if (subchannel->scsw & SCSW_FUNCTIONS)
		cc = 2;
	else if (subchannel->flags & PMCW_VALID)
		disables = modify(subchannel, schib) && !(subchannel->flags & PMCW_ENABLED);
	ranked_unlock(&css->host.lock);
	if (!disables) {
		free(disable);
		return cc;
	}
	*disable = (struct disable){ .css = css, .subchannel = subchannel, .done = done, .context = context };
	list_init(&disable->wait.link);
	loop_post(css->host.owner, &disable->message, on_disable);
	return PINTLE_CSS_PENDING;
}

/* ---- functions ---- */

int css_ssch(struct css *css, uint32_t schid, const uint8_t *orb)
{
	struct subchannel *subchannel;
	uint32_t words[3] = { load_be32(orb), load_be32(orb + 4), load_be32(orb + 8) };
	int cc = css_find(css, schid, &subchannel);

	if ((cc == 0 || cc == 3) && ((words[1] & ORB_INVALID) || words[2] >> 31))
		return PINTLE_CSS_OPERAND;
	return cc ? cc : subchannel_start(subchannel, words);
}

int css_call(struct css *css, uint32_t schid, int (*fn)(struct subchannel *))
{
	struct subchannel *subchannel;
	int cc = css_find(css, schid, &subchannel);
	return cc ? cc : fn(subchannel);
}

int css_tsch(struct css *css, uint32_t schid, uint8_t *irb)
{
	struct subchannel *subchannel;
	int cc = css_find(css, schid, &subchannel);
	return cc ? cc : subchannel_test(subchannel, irb);
}

/* ---- the others ---- */

#define SCHM_RESERVED UINT64_C(0x0ffffffc)
#define SCHM_UPDATE 2u
#define SCHM_ORIGIN_MASK 31u

int css_schm(uint64_t gpr1, uint64_t gpr2)
{
	bool wrong = (gpr1 & SCHM_RESERVED) || ((gpr1 & SCHM_UPDATE) && (gpr2 & SCHM_ORIGIN_MASK));
	return wrong ? PINTLE_CSS_OPERAND : 0;
}

#define SAL_RESERVED UINT64_C(0x8000ffff)

int css_sal(struct css *css, uint64_t gpr1)
{
	if (gpr1 & SAL_RESERVED)
		return PINTLE_CSS_OPERAND;
	ranked_lock(&css->host.lock);
	css->host.address_limit = gpr1 & UINT32_MAX;
	ranked_unlock(&css->host.lock);
	return 0;
}

#define RCHP_RESERVED UINT64_C(0xff00ff00)
#define RCHP_IMAGE UINT64_C(0x00ff0000)
#define CRW_SOLICITED UINT32_C(0x40000000)
#define CRW_CHANNEL_PATH UINT32_C(0x04000000)
#define CRW_INITIALIZED UINT32_C(0x00020000)

int css_rchp(struct css *css, uint64_t gpr1)
{
	if (gpr1 & (RCHP_RESERVED | RCHP_IMAGE))
		return PINTLE_CSS_OPERAND;
	if (gpr1 & 0xff)
		return 3; /* there is channel path 0 */
	/* Nothing of a virtual path has a state that could be reset; that it is done is reported. */
	uint32_t word = CRW_SOLICITED | CRW_CHANNEL_PATH | CRW_INITIALIZED;
	channel_report(&css->host, &word, 1);
	return 0;
}

int css_suppression(struct css *css, uint8_t isc, uint32_t mode)
{
	if (isc > 7 || mode > PINTLE_CSS_SINGLE_INTERRUPTION)
		return PINTLE_CSS_OPERAND;
	uint8_t bit = (uint8_t)(0x80u >> isc);
	ranked_lock(&css->host.lock);
	css->host.suppressed &= (uint8_t)~bit;
	if (mode == PINTLE_CSS_SINGLE_INTERRUPTION)
		css->host.single |= bit;
	else
		css->host.single &= (uint8_t)~bit;
	ranked_unlock(&css->host.lock);
	return 0;
}

#define DIAGNOSE_NOTIFY 3u

/* A subchannel is found by two loads, so that the cookie has nothing to speed up and is not looked at. */
int64_t css_notify(struct css *css, uint64_t gpr1, uint64_t gpr2, uint64_t gpr3)
{
	struct subchannel *subchannel;

	if (gpr1 != DIAGNOSE_NOTIFY || css_find(css, (uint32_t)gpr2, &subchannel))
		return -EINVAL;
	return subchannel_notify(subchannel, gpr3);
}
