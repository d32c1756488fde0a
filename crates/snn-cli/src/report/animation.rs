//! Pictures one after the other, as one GIF.
//!
//! All frames share one palette, so that a colour that stands for a value stands for it in every frame: exact where
//! the frames hold 256 colours at most, otherwise the nearest of 256 that the GIF crate chooses.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use gif::{Encoder, Frame, Repeat};

use super::draw::{Picture, Pixels};

/// Pixels per unit of length: enough to read the smallest labels on a screen.
const PIXELS: f32 = 1.5;
/// How long a frame stands, in hundredths of a second.
const PAUSE: u16 = 40;
/// How long the last one does, before the first one comes again.
const LAST_PAUSE: u16 = 200;
/// Colours in a row of the image that the palette is made from.
const ROW: usize = 1024;

type Colour = [u8; 3];

const WHITE: Colour = [0xff; 3];

/// Draws `count` frames, each twice (for its colours, then for its pixels), and gives the bytes of an endless GIF.
///
/// Frames of unlike sizes are extended to the largest with white.
///
/// # Errors
///
/// If there is no frame, one cannot be drawn, or they are larger than the format allows.
pub(crate) fn gif(count: usize, mut frame: impl FnMut(usize) -> Result<Picture>) -> Result<Vec<u8>> {
    ensure!(count > 0, "an animation needs at least one frame");
    let (mut width, mut height) = (0, 0);
    let mut colours = BTreeMap::from([(WHITE, 1)]);
    for index in 0..count {
        let pixels = frame(index)?.pixels(PIXELS)?;
        width = width.max(pixels.width);
        height = height.max(pixels.colours.len() / pixels.width.max(1));
        for run in pixels.colours.chunk_by(|a, b| a == b) {
            *colours.entry(run[0]).or_insert(0_usize) += run.len();
        }
    }
    let side = |length: usize| u16::try_from(length).context("a GIF has at most 65535 pixels a side");
    let (wide, high) = (side(width)?, side(height)?);
    let (palette, places) = palette(&colours)?;
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, wide, high, &palette)?;
    encoder.set_repeat(Repeat::Infinite)?;
    for index in 0..count {
        let pixels = frame(index)?.pixels(PIXELS)?;
        encoder.write_frame(&Frame {
            width: wide,
            height: high,
            delay: if index + 1 == count { LAST_PAUSE } else { PAUSE },
            buffer: Cow::Owned(indices(&pixels, width, height, &places)),
            ..Frame::default()
        })?;
    }
    drop(encoder);
    Ok(bytes)
}

/// The place of each pixel's colour in the palette.
fn indices(pixels: &Pixels, width: usize, height: usize, places: &BTreeMap<Colour, u8>) -> Vec<u8> {
    let place = |colour: &Colour| places.get(colour).copied().unwrap_or_default();
    let mut indices = vec![place(&WHITE); width * height];
    for (row, colours) in indices.chunks_exact_mut(width).zip(pixels.colours.chunks_exact(pixels.width)) {
        let mut last = (WHITE, place(&WHITE));
        for (index, colour) in row.iter_mut().zip(colours) {
            if *colour != last.0 {
                last = (*colour, place(colour));
            }
            *index = last.1;
        }
    }
    indices
}

/// A palette for the given colours and their numbers of pixels, and the place in it of each.
///
/// The GIF crate makes palettes of images: this one is made of an image in which a colour stands the more often the
/// more pixels have it, but rare ones are not lost in it.
fn palette(colours: &BTreeMap<Colour, usize>) -> Result<(Vec<u8>, BTreeMap<Colour, u8>)> {
    let exact = colours.len() <= 256;
    let weight = |count: usize| if exact { 1 } else { 1 + count.ilog2() as usize };
    let weighted = || colours.iter().flat_map(|(&colour, &count)| std::iter::repeat_n(colour, weight(count)));
    let cells = weighted().count().next_multiple_of(ROW);
    let mut image: Vec<u8> = weighted().cycle().take(cells).flat_map(|[r, g, b]| [r, g, b, 0xff]).collect();
    let high = u16::try_from(cells / ROW).context("the pictures have too many colours")?;
    let sample = Frame::from_rgba_speed(ROW as u16, high, &mut image, 1);
    let places: BTreeMap<Colour, u8> = weighted().zip(sample.buffer.iter().copied()).collect();
    let mut palette = sample.palette.unwrap_or_default();
    // The background stays as white as the page around it.
    let white = places.get(&WHITE).map(|&place| 3 * usize::from(place));
    if let Some(entry) = white.and_then(|start| palette.get_mut(start..start + 3)) {
        entry.fill(0xff);
    }
    Ok((palette, places))
}

#[cfg(test)]
mod tests {
    use super::super::draw::draw;
    use super::super::figure::{Figure, Heat, Panel};
    use super::*;

    fn picture(step: usize) -> Result<Picture> {
        let values = (0..3).map(|y| (0..40).map(|x| Some((x * y + step) as f64)).collect()).collect();
        let names = |n: usize| (0..n).map(|i| i.to_string());
        let heat = Heat::new(names(40), names(3), values, "spikes").limits(0.0, 100.0);
        // A second line of title from some frame on makes that frame higher.
        let title = if step > 1 { "one line ".repeat(12) } else { "one line".to_owned() };
        draw(&Figure::new("f", title, 1).panel(Panel::new("", "neuron", "class", heat)))
    }

    #[test]
    fn an_animation_has_every_frame_at_one_size_and_with_one_palette() {
        let bytes = gif(3, picture).unwrap();
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::Indexed);
        let mut decoder = options.read_info(&bytes[..]).unwrap();
        let size = (decoder.width(), decoder.height());
        let tallest = picture(2).unwrap().pixels(PIXELS).unwrap();
        assert_eq!((usize::from(size.0) * usize::from(size.1), usize::from(size.0)), (tallest.colours.len(), 840));
        assert!(decoder.global_palette().is_some_and(|palette| palette.len() <= 3 * 256));
        let mut delays = Vec::new();
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            assert_eq!((frame.width, frame.height, frame.palette.is_some()), (size.0, size.1, false));
            delays.push(frame.delay);
        }
        assert_eq!(delays, [PAUSE, PAUSE, LAST_PAUSE]);
        assert!(gif(0, picture).is_err());
    }

    #[test]
    fn few_colours_are_kept_exactly_and_many_nearly() {
        for count in [3_usize, 256, 4000] {
            let colours: BTreeMap<Colour, usize> =
                (0..count).map(|i| ([(i * 7 % 256) as u8, (i / 256 * 16) as u8, (i % 256) as u8], i + 1)).collect();
            let (palette, places) = palette(&colours).unwrap();
            assert_eq!(places.len(), colours.len());
            let worst = places.iter().flat_map(|(colour, &place)| {
                let got = &palette[3 * usize::from(place)..3 * usize::from(place) + 3];
                colour.iter().zip(got).map(|(a, b)| a.abs_diff(*b)).collect::<Vec<_>>()
            });
            let worst = worst.max().unwrap();
            assert!(if count > 256 { worst < 64 } else { worst == 0 }, "{count}: {worst}");
        }
    }
}
