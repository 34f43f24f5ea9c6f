//! Makes thumbnails of PNG and JPEG images.
//!
//! The payload is the image. A header `size` says how many pixels the longer side may have, 256 without
//! it; smaller images stay as they are. The output is an image of the same kind, upright whatever the
//! camera's orientation was, and without anything else that was in the file. What is no such image is
//! rejected, and so is one with more pixels than 50 million.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use scutwork_plugin::{Failure, OrFail, Output, Task, control, plugin};

/// The longer side of a thumbnail, when no header says another.
const SIZE: u32 = 256;
/// The longest that may be asked for.
const MAX_SIZE: u32 = 4096;
/// More would not fit into the memory that thumb.toml gives.
const MAX_PIXELS: u64 = 50_000_000;
/// Smaller files look no worse at this size.
const JPEG_QUALITY: u8 = 80;

plugin!(thumb);

fn thumb(task: Task) -> Result<Output, Failure> {
    let size = size(task.header("size"))?;
    let (image, format) = read(&task.payload)?;
    control::progress(1, 3, "read");
    let is_small = image.width() <= size && image.height() <= size;
    let small = match is_small {
        true => image,
        false => image.thumbnail(size, size),
    };
    control::progress(2, 3, "scaled");
    write(&small, format)
}

fn size(header: Option<&str>) -> Result<u32, Failure> {
    let Some(text) = header else {
        return Ok(SIZE);
    };
    let size = text
        .parse()
        .ok()
        .filter(|size| (1..=MAX_SIZE).contains(size));
    size.ok_or_else(|| format!("the header size is {text:?}, and may be 1 to {MAX_SIZE}"))
        .or_reject("bad-size")
}

/// The image, upright, and what kind it was.
fn read(bytes: &[u8]) -> Result<(DynamicImage, ImageFormat), Failure> {
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(other) => return Err(no_image(format!("it is {other:?}"))),
        Err(_) => return Err(no_image("its first bytes are of no image")),
    };
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format)
        .into_decoder()
        .map_err(no_image)?;
    let (width, height) = decoder.dimensions();
    // Told before the pixels are there: a small file may say that it has billions.
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        let why = format!("it has {width} x {height} pixels, and may have {MAX_PIXELS}");
        return Err(Failure::reject("too-many-pixels", why));
    }
    let orientation = decoder.orientation().map_err(no_image)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| match error {
        ImageError::Limits(_) => Failure::reject("too-many-pixels", error),
        error => no_image(error),
    })?;
    image.apply_orientation(orientation);
    Ok((image, format))
}

fn no_image(why: impl std::fmt::Display) -> Failure {
    let why = format!("the payload is no PNG or JPEG image that can be read: {why}");
    Failure::reject("not-an-image", why)
}

fn write(image: &DynamicImage, format: ImageFormat) -> Result<Output, Failure> {
    let mut file = Cursor::new(Vec::new());
    let written = match format {
        ImageFormat::Jpeg => {
            let encoder = JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
            // JPEG has no transparency and 8 bits a colour.
            image.to_rgb8().write_with_encoder(encoder)
        }
        format => image.write_to(&mut file, format),
    };
    written.or_reject("not-written")?;
    Ok(Output::bytes(format.to_mime_type(), file.into_inner()))
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
        let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 90]));
        write(&image.into(), format).unwrap().body
    }

    fn code(task: Task) -> String {
        match thumb(task) {
            Err(Failure::Reject(reason)) => reason.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_longer_side_shrinks_to_the_size_and_the_kind_stays() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let task = Task::new(picture(600, 300, format)).with_header("size", "60");
            let output = thumb(task).unwrap();
            assert_eq!(output.content_type.as_deref(), Some(format.to_mime_type()));
            let (small, kind) = read(&output.body).unwrap();
            assert_eq!((small.width(), small.height(), kind), (60, 30, format));
        }
    }

    #[test]
    fn a_small_image_is_not_blown_up() {
        let output = thumb(Task::new(picture(20, 10, ImageFormat::Png))).unwrap();
        let (same, _) = read(&output.body).unwrap();
        assert_eq!((same.width(), same.height()), (20, 10));
    }

    #[test]
    fn what_is_no_image_is_rejected() {
        let png = picture(9, 9, ImageFormat::Png);
        let cut = png[..png.len() / 2].to_vec();
        for payload in [b"".to_vec(), b"GIF89a".to_vec(), b"hello".to_vec(), cut] {
            assert_eq!(code(Task::new(payload)), "not-an-image");
        }
    }

    #[test]
    fn a_size_that_is_none_is_rejected() {
        for size in ["0", "-1", "4097", "big"] {
            let task = Task::new(picture(9, 9, ImageFormat::Png)).with_header("size", size);
            assert_eq!(code(task), "bad-size", "{size}");
        }
    }

    #[test]
    fn an_image_of_billions_of_pixels_is_rejected_before_they_are_there() {
        let mut png = picture(9, 9, ImageFormat::Png);
        // The width and the height of the header, and its checksum.
        png[16..24].copy_from_slice(&[0, 0, 0x7f, 0xff, 0, 0, 0x7f, 0xff]);
        let sum = checksum(&png[12..29]);
        png[29..33].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(code(Task::new(png)), "too-many-pixels");
    }

    /// PNG's CRC.
    fn checksum(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
            })
        })
    }
}
