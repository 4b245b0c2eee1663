//! Unpacks what gzip or zstd packed. The content shows which, whatever the name of the file.

use std::io::{BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::format::BUFFER_BYTES;

/// The content of a file or of the standard input.
pub(super) type Input = Box<dyn BufRead + Send>;

/// Unpacks what gzip or zstd packed, which shows in the first bytes. Returns whether it was packed.
pub(super) fn unpacked(mut input: Input) -> anyhow::Result<(Input, bool)> {
    let mut first = Vec::new();
    input.by_ref().take(4).read_to_end(&mut first)?;
    let (is_gzip, is_zstd) = (first.starts_with(&[0x1f, 0x8b]), is_zstd(&first));
    let input: Input = Box::new(Cursor::new(first).chain(input));
    Ok(match (is_gzip, is_zstd) {
        (true, _) => (Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input))), true),
        (_, true) => (Box::new(BufReader::with_capacity(BUFFER_BYTES, Zstd { input: Some(input), frame: None })), true),
        _ => (input, false),
    })
}

/// The beginning of a zstd frame.
const FRAME: u32 = 0xfd2f_b528;
/// The beginning of a zstd frame that has no content, without the lowest four bits.
const SKIPPABLE_FRAME: u32 = 0x184d_2a50;

fn is_zstd(first: &[u8]) -> bool {
    let magic = <[u8; 4]>::try_from(first).map(u32::from_le_bytes);
    magic.is_ok_and(|magic| magic == FRAME || magic & !0xf == SKIPPABLE_FRAME)
}

/// Unpacks all frames of a zstd file, and compares their checksums. The library unpacks one.
struct Zstd {
    input: Option<Input>,
    frame: Option<Box<StreamingDecoder<Input, FrameDecoder>>>,
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                let stated = frame.decoder.get_checksum_from_data();
                if stated.is_some() && stated != frame.decoder.get_calculated_checksum() {
                    return Err(std::io::Error::other("a checksum does not match"));
                }
            }
            if let Some(frame) = self.frame.take() {
                self.input = Some(frame.into_inner());
            }
            let Some(mut input) = self.input.take() else { return Ok(0) };
            let mut magic = Vec::new();
            input.by_ref().take(4).read_to_end(&mut magic)?;
            match <[u8; 4]>::try_from(magic.as_slice()).map(u32::from_le_bytes) {
                Err(_) if magic.is_empty() => return Ok(0),
                Ok(magic) if magic & !0xf == SKIPPABLE_FRAME => {
                    let mut bytes = [0; 4];
                    input.read_exact(&mut bytes)?;
                    std::io::copy(&mut input.by_ref().take(u32::from_le_bytes(bytes).into()), &mut std::io::sink())?;
                    self.input = Some(input);
                }
                _ => {
                    let input: Input = Box::new(Cursor::new(magic).chain(input));
                    self.frame = Some(Box::new(StreamingDecoder::new(input).map_err(std::io::Error::other)?));
                }
            }
        }
    }
}
