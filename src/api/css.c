// SPDX-License-Identifier: BSD-2-Clause
/*
 * The channel subsystem of the public interface: thin over road/css.
 */
#include <stdlib.h>

#include "api/private.h"
#include "road/css/css.h"

static struct css *css_of(struct pintle_css *css)
{
	return (struct css *)css;
}

PINTLE_EXPORT int pintle_css_create(struct pintle_css **out, struct pintle_loop *loop, const struct pintle_css_options *options,
				    struct pintle_error *err)
{
	return css_create((struct css **)out, api_loop(loop), options, err);
}

PINTLE_EXPORT void pintle_css_destroy(struct pintle_css *css)
{
	css_destroy(css_of(css));
}

PINTLE_EXPORT void pintle_channel_device_destroy(struct pintle_channel_device *device)
{
	if (!device)
		return;
	device->release(device);
	free(device);
}

PINTLE_EXPORT int pintle_css_add(struct pintle_css *css, struct pintle_channel_device *device, const struct pintle_css_place *place, uint32_t *schid,
				 struct pintle_error *err)
{
	return css_add(css_of(css), device->channel, place, schid, err);
}

PINTLE_EXPORT int pintle_css_remove(struct pintle_css *css, struct pintle_channel_device *device, bool force, void (*done)(void *context),
				    void *context)
{
	return css_remove(css_of(css), device->channel, force, done, context);
}

PINTLE_EXPORT int pintle_css_reset(struct pintle_css *css, void (*done)(void *context), void *context)
{
	return css_reset(css_of(css), done, context);
}

PINTLE_EXPORT void pintle_channel_device_config_changed(struct pintle_channel_device *device)
{
	virtio_device_config_changed(device->virtio);
}

PINTLE_EXPORT int pintle_css_stsch(struct pintle_css *css, uint32_t schid, uint8_t schib[PINTLE_CSS_SCHIB_SIZE])
{
	return css_stsch(css_of(css), schid, schib);
}

PINTLE_EXPORT int pintle_css_msch(struct pintle_css *css, uint32_t schid, const uint8_t schib[PINTLE_CSS_SCHIB_SIZE],
				  void (*done)(void *context, int cc), void *context)
{
	return css_msch(css_of(css), schid, schib, done, context);
}

PINTLE_EXPORT int pintle_css_ssch(struct pintle_css *css, uint32_t schid, const uint8_t orb[PINTLE_CSS_ORB_SIZE])
{
	return css_ssch(css_of(css), schid, orb);
}

PINTLE_EXPORT int pintle_css_rsch(struct pintle_css *css, uint32_t schid)
{
	return css_call(css_of(css), schid, subchannel_resume);
}

PINTLE_EXPORT int pintle_css_hsch(struct pintle_css *css, uint32_t schid)
{
	return css_call(css_of(css), schid, subchannel_halt);
}

PINTLE_EXPORT int pintle_css_csch(struct pintle_css *css, uint32_t schid)
{
	return css_call(css_of(css), schid, subchannel_clear);
}

PINTLE_EXPORT int pintle_css_xsch(struct pintle_css *css, uint32_t schid)
{
	return css_call(css_of(css), schid, subchannel_cancel);
}

PINTLE_EXPORT int pintle_css_tsch(struct pintle_css *css, uint32_t schid, uint8_t irb[PINTLE_CSS_IRB_SIZE])
{
	return css_tsch(css_of(css), schid, irb);
}

PINTLE_EXPORT int pintle_css_stcrw(struct pintle_css *css, uint8_t crw[PINTLE_CSS_CRW_SIZE])
{
	uint32_t word;
	bool found = channel_take_report(&css_of(css)->host, &word);
	store_be32(crw, word);
	return found ? 0 : 1;
}

PINTLE_EXPORT int pintle_css_schm(struct pintle_css *css, uint64_t gpr1, uint64_t gpr2)
{
	(void)css;
	return css_schm(gpr1, gpr2);
}

PINTLE_EXPORT int pintle_css_sal(struct pintle_css *css, uint64_t gpr1)
{
	return css_sal(css_of(css), gpr1);
}

PINTLE_EXPORT int pintle_css_rchp(struct pintle_css *css, uint64_t gpr1)
{
	return css_rchp(css_of(css), gpr1);
}

PINTLE_EXPORT int pintle_css_chsc(struct pintle_css *css, uint8_t page[PINTLE_CSS_CHSC_SIZE])
{
	return css_chsc(css_of(css), page);
}

PINTLE_EXPORT bool pintle_css_take_interruption(struct pintle_css *css, uint8_t isc_mask, struct pintle_css_interruption *out)
{
	struct channel_interruption taken;
	bool found = channel_take_interruption(&css_of(css)->host, isc_mask, &taken);
	if (found)
		*out = (struct pintle_css_interruption){ taken.id, taken.parameter, taken.word };
	return found;
}

PINTLE_EXPORT int pintle_css_tpi(struct pintle_css *css, uint8_t isc_mask, struct pintle_css_interruption *out)
{
	return pintle_css_take_interruption(css, isc_mask, out);
}

PINTLE_EXPORT uint8_t pintle_css_io_pending(struct pintle_css *css)
{
	return channel_pending_mask(&css_of(css)->host);
}

PINTLE_EXPORT bool pintle_css_take_machine_check(struct pintle_css *css)
{
	return channel_take_machine_check(&css_of(css)->host);
}

PINTLE_EXPORT int64_t pintle_css_diagnose_500(struct pintle_css *css, uint64_t gpr1, uint64_t gpr2, uint64_t gpr3, uint64_t gpr4)
{
	(void)gpr4;
	return css_notify(css_of(css), gpr1, gpr2, gpr3);
}

PINTLE_EXPORT int pintle_css_event(struct pintle_css *css, uint8_t type, uint8_t content, const void *data, size_t length)
{
	return css_event(css_of(css), type, content, data, length);
}

PINTLE_EXPORT void pintle_css_channel_report(struct pintle_css *css, uint32_t crw)
{
	channel_report(&css_of(css)->host, &crw, 1);
}

PINTLE_EXPORT int pintle_css_set_suppression(struct pintle_css *css, uint8_t isc, uint32_t mode)
{
	return css_suppression(css_of(css), isc, mode);
}

PINTLE_EXPORT void pintle_css_adapter_interruption(struct pintle_css *css, uint8_t isc, bool suppressible)
{
	channel_adapter_interruption(&css_of(css)->host, isc, suppressible);
}

PINTLE_EXPORT int pintle_channel_device_save(struct pintle_channel_device *device, unsigned level, pintle_saved_fn *fn, void *context,
					     struct pintle_error *err)
{
	return css_save_device(device->channel, level, fn, context, err);
}

PINTLE_EXPORT void pintle_channel_device_resume(struct pintle_channel_device *device)
{
	css_resume_device(device->channel);
}

PINTLE_EXPORT int pintle_css_restore_device(struct pintle_css *css, struct pintle_channel_device *device, const void *file, size_t length, uint32_t *schid,
					    struct pintle_error *err)
{
	return css_restore_device(css_of(css), device->channel, file, length, schid, err);
}

PINTLE_EXPORT int pintle_css_save(struct pintle_css *css, unsigned level, void **file, size_t *length, struct pintle_error *err)
{
	return css_save(css_of(css), level, file, length, err);
}

PINTLE_EXPORT int pintle_css_restore(struct pintle_css *css, const void *file, size_t length, struct pintle_error *err)
{
	return css_restore(css_of(css), file, length, err);
}
