# SPDX-License-Identifier: MIT
"""The outlines of all pictures in a folder, by worker processes, with Pillow.

usage: 25_contour.py [FOLDER]

Reads FOLDER/input_images/*.jpg and writes FOLDER/processed; without a folder the program paints
some pictures first, and clears them away in the end.
"""
from cfutures import ProcessPoolExecutor
from PIL import Image, ImageFilter
import glob, os
import sys
import tempfile


def process_image(path):
    img = Image.open(path)
    img = img.filter(ImageFilter.CONTOUR)
    output_path = f'processed/{os.path.basename(path)}'
    img.save(output_path)
    return output_path


def paint(folder):
    """Twelve pictures of different sizes: the Mandelbrot set, seen from further and further."""
    os.mkdir(f'{folder}/input_images')
    for i in range(1, 13):
        img = Image.effect_mandelbrot((80 * i, 60 * i), (-1 - 0.2 * i, -1.5, 1, 1.5), 100)
        img.save(f'{folder}/input_images/mandelbrot_{i:02}.jpg')


def process_folder(folder):
    os.chdir(folder)
    os.makedirs('processed', exist_ok=True)
    image_paths = glob.glob('input_images/*.jpg')

    with ProcessPoolExecutor(max_workers=8) as executor:
        for result in executor.map(process_image, image_paths):
            print(f'Processed: {result}')

    print(f"{len(image_paths)} pictures, {len(os.listdir('processed'))} outlines")


def main():
    if len(sys.argv) > 1:
        process_folder(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as folder:
        paint(folder)
        process_folder(folder)


if __name__ == "__main__":
    main()
