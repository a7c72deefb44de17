#include "base/status.h"

#include <errno.h>

#define NAME(status) [-(status)] = #status
static const char *const error_names[] = {
	NAME(COLLECT_OK),
	NAME(COLLECT_E_INVALID),
	NAME(COLLECT_E_MEMORY),
	NAME(COLLECT_E_SYSTEM),
	NAME(COLLECT_E_ADDRESS),
	NAME(COLLECT_E_ABORTED),
	NAME(COLLECT_E_CLOSED),
	NAME(COLLECT_E_FAILED),
	NAME(COLLECT_E_BUSY),
	NAME(COLLECT_E_FULL),
	NAME(COLLECT_E_UNAVAILABLE),
	NAME(COLLECT_E_MEMBERS),
	NAME(COLLECT_E_TIMEOUT),
	NAME(COLLECT_E_PEER),
	NAME(COLLECT_E_TRUNCATED),
	NAME(COLLECT_E_BOUNDARY),
};
#undef NAME

#define ERROR_NAME_COUNT ((int)(sizeof(error_names) / sizeof(error_names[0])))

const char *col_status_name(int status)
{
	if (status == COLLECT_PENDING)
		return "COLLECT_PENDING";
	if (status > 0 || status <= -ERROR_NAME_COUNT)
		return "COLLECT_E_UNKNOWN";
	return error_names[-status];
}

int col_status_from_errno(int error)
{
	switch (error) {
	case ENOMEM:
	case ENOBUFS:
		return COLLECT_E_MEMORY;
	case EADDRINUSE:
	case EADDRNOTAVAIL:
	case EAFNOSUPPORT:
		return COLLECT_E_ADDRESS;
	default:
		return COLLECT_E_SYSTEM;
	}
}
