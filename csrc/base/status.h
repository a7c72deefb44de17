/* Status codes: names, and the translation of errno. */
#ifndef COL_BASE_STATUS_H
#define COL_BASE_STATUS_H

#include "include/collect.h"

/* A static name such as "COLLECT_E_MEMORY"; "COLLECT_E_UNKNOWN" for anything else. */
const char *col_status_name(int status);

/* The status that stands for a failed system call's errno. */
int col_status_from_errno(int error);

#endif
