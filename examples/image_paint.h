/* SPDX-License-Identifier: MIT */
/* Paints pictures for those who have none: three ridges, one before the other, under a sky with a
 * sun, and over everything the grain of a film. */
#ifndef EXAMPLES_IMAGE_PAINT_H
#define EXAMPLES_IMAGE_PAINT_H

#include "image_file.h"
#include <math.h>

struct colour {
    int red, green, blue;
};

static inline unsigned char limited(int value)
{
    return (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* The colour of a point in a picture that is one wide and `high` high. */
static inline struct colour colour_at(double x, double y, double high, unsigned seed)
{
    static const struct colour ridges[] = { { 30, 70, 35 }, { 60, 105, 60 }, { 110, 140, 130 } };
    for (int i = 0; i < 3; i++) {
        double hills = 0.08 * sin(x * (13 - 4 * i) + seed + i);
        double rocks = 0.01 * sin(x * 60 + seed * (i + 2.0));
        if (y > high * (0.8 - 0.15 * i + hills + rocks))
            return ridges[i];
    }
    if (hypot(x - 0.2 - 0.1 * (seed % 7), y - high / 5) < 0.05)
        return (struct colour){ 255, 235, 170 };
    int pale = (int)(160 * y / high);
    return (struct colour){ 70 + pale, 120 + pale, 225 };
}

/* Fills the pixels. */
static inline void image_paint(struct image *image, unsigned seed)
{
    unsigned random = seed;
    unsigned char *point = image->pixels;
    double wide = image->width, high = image->height / wide;
    for (int y = 0; y < image->height; y++)
        for (int x = 0; x < image->width; x++) {
            struct colour colour = colour_at(x / wide, y / wide, high, seed);
            random = random * 1664525 + 1013904223;
            int grain = (int)(random >> 29) - 4;
            *point++ = limited(colour.red + grain);
            *point++ = limited(colour.green + grain);
            *point++ = limited(colour.blue + grain);
        }
}

#endif
