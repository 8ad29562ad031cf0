/* The least a guest can do; also the probe for whether a platform works. */
#include "guest.h"
int main(void) {
    CHECK("write reaches stdout", 1);
    return done();
}
