/* charger.h - the cell behind a charger. */
#ifndef FSM_CHARGER_H
#define FSM_CHARGER_H

#include "region/layout.h"

/* Whether the cell still belongs to the holder of the charger. Needs no lock. */
bool owns_cell(const fsm_charger *charger);
/* The cell of the charger. -ENODEV: another process has ended its holder. */
int charger_cell(const fsm_charger *charger, cell **out);
/* Takes the lock and finds the cell of each charger. -EINVAL unless they are of one holder and different resources. */
int lock_chargers(fsm_charger *const *chargers, cell **cells, size_t n);

#endif
