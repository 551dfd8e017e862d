/* fault.c - the details of an error, for the calling thread. */
#include "region/fault.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

_Thread_local fsm_fault fsm_fault_here;

const fsm_fault *fsm_last_fault(void)
{
    return &fsm_fault_here;
}

int fail_with(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fsm_fault_here.text, sizeof fsm_fault_here.text, format, arguments);
    va_end(arguments);
    return code;
}

int corrupt(fsm_region *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fsm_fault_here.text, sizeof fsm_fault_here.text, format, arguments);
    va_end(arguments);
    r->header->broken = 1;
    return -EUCLEAN;
}

int gone(fsm_region *r)
{
    return is_region(r->header) ? -ENODEV : corrupt(r, CUT_SHORT);
}
