// SPDX-License-Identifier: BSD-2-Clause
/*
 * The events that are faults injected by the control socket, and what each means for the driver's model.
 */
#include "matrix.h"

static void inject(const struct function *f, const char *fault)
{
	control_call(f, "inject", "\"fault\":\"%s\"", fault);
}

/* The load goes on meanwhile. */
static void spend_open(const struct function *f, unsigned ms)
{
	double end = now_ms() + ms;

	do {
		for (unsigned i = 0; i < f->variant->functions; i++)
			traffic_pump(&functions[i]);
	} while (now_ms() < end);
}

void fault_master_off(struct function *f, const unsigned *args)
{
	uint32_t command;

	inject(f, "bus-master-off");
	must(drive_pci_config_read(f->blk->pci, PCI_COMMAND, 2, &command, &err));
	check(!(command & PCI_COMMAND_MASTER), "bus master is on after it was taken away");
	drive_client_set_bus_master(f->client, false);
	f->master = false;
	f->master_ever = true;
	spend_closed(f, args[0], args[1]);
}

void fault_master_on(struct function *f, const unsigned *args)
{
	(void)args;
	watch_end(f);
	drive_client_set_bus_master(f->client, true);
	f->master = f->master_ever = true;
	inject(f, "bus-master-on");
}

void fault_stop(struct function *f, const unsigned *args)
{
	inject(f, "stop");
	f->stopped = true;
	spend_closed(f, args[0], args[1]);
}

void fault_continue(struct function *f, const unsigned *args)
{
	(void)args;
	watch_end(f);
	f->stopped = false;
	inject(f, "continue");
}

void fault_spurious_interrupt(struct function *f, const unsigned *args)
{
	if (applies(f, f->mode == DRIVE_IRQ_MSIX))
		control_call(f, "inject", "\"fault\":\"spurious-interrupt\",\"vector\":%u", args[0] % (f->variant->queues + 1));
}

/* The driver's watchdog looks at every ring afterwards: what is lost is the interrupt, and nothing else. */
void fault_lose_interrupt(struct function *f, const unsigned *args)
{
	unsigned vector = args[0] % (f->variant->queues + 1);

	if (!applies(f, f->mode == DRIVE_IRQ_MSIX))
		return;
	control_call(f, "inject", "\"fault\":\"lose-interrupt\",\"vector\":%u,\"count\":%u", vector, args[1]);
	spend_open(f, args[2]);
	control_call(f, "inject", "\"fault\":\"lose-interrupt\",\"vector\":%u,\"count\":0", vector);
	traffic_awake(f);
}

void fault_withdraw(struct function *f, const unsigned *args)
{
	if (!applies(f, f->unmapped != MATRIX_ALL))
		return;
	control_call(f, "inject", "\"fault\":\"withdraw-mapping\",\"pick\":%u,\"size\":%u,\"for\":%g", args[0], args[1] * 4096, (args[2] + 1) / 1e3);
	spend_open(f, args[2]);
	inject(f, "give-back");
}

void fault_backend_error(struct function *f, const unsigned *args)
{
	f->failing += args[0];
	control_call(f, "inject", "\"fault\":\"fail\",\"error\":\"EIO\",\"count\":%u", args[0]);
	spend_open(f, args[1]);
	inject(f, "heal");
}
