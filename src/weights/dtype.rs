//! How numbers are stored in a bundle.

use half::f16;
use serde::{Deserialize, Serialize};

/// A stored number format. A tensor is a matrix here: its first dimension counts rows, the rest is the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredDtype {
    F32,
    F16,
    /// Per-row symmetric int8: all rows' f16 scales, then all rows' bytes; value = scale * byte.
    Q8,
    /// Blocks of 32 along the row (the last may be shorter), symmetric in -7..7: all f16 scales, then all
    /// nibbles, two a byte, low first, biased by 8; value = scale * (nibble - 8).
    Q4,
}

const Q4_BLOCK: usize = 32;

impl StoredDtype {
    pub const NAMES: &'static str = "f32, f16, q8, q4";

    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "f32" => Self::F32,
            "f16" => Self::F16,
            "q8" => Self::Q8,
            "q4" => Self::Q4,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// Bytes of `rows` rows of `cols` values; `None` where that overflows.
    pub fn byte_len(self, rows: usize, cols: usize) -> Option<usize> {
        let values = rows.checked_mul(cols)?;
        match self {
            Self::F32 => values.checked_mul(4),
            Self::F16 => values.checked_mul(2),
            Self::Q8 => rows.checked_mul(2)?.checked_add(values),
            Self::Q4 => {
                let scales = rows.checked_mul(cols.div_ceil(Q4_BLOCK))?.checked_mul(2)?;
                scales.checked_add(rows.checked_mul(cols.div_ceil(2))?)
            }
        }
    }

    /// `rows * cols` values to bytes.
    pub fn encode(self, values: &[f32], cols: usize) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
            Self::Q8 => {
                let mut scales = Vec::new();
                let mut bytes = Vec::with_capacity(values.len());
                for row in values.chunks(cols.max(1)) {
                    let scale = symmetric_scale(row, 127.0);
                    scales.extend(scale.to_le_bytes());
                    bytes.extend(row.iter().map(|v| quantise(*v, scale, 127.0) as u8));
                }
                scales.extend(bytes);
                scales
            }
            Self::Q4 => {
                let mut scales = Vec::new();
                let mut bytes = Vec::with_capacity(values.len() / 2);
                for row in values.chunks(cols.max(1)) {
                    let mut nibbles = Vec::with_capacity(cols);
                    for block in row.chunks(Q4_BLOCK) {
                        let scale = symmetric_scale(block, 7.0);
                        scales.extend(scale.to_le_bytes());
                        nibbles.extend(block.iter().map(|v| (quantise(*v, scale, 7.0) + 8) as u8));
                    }
                    bytes.extend(nibbles.chunks(2).map(|pair| pair[0] | pair.get(1).copied().unwrap_or(8) << 4));
                }
                scales.extend(bytes);
                scales
            }
        }
    }

    /// The inverse of [`encode`](Self::encode). `bytes` has exactly [`byte_len`](Self::byte_len) bytes.
    pub fn decode(self, bytes: &[u8], rows: usize, cols: usize) -> Vec<f32> {
        let half = |pair: &[u8]| f16::from_le_bytes([pair[0], pair[1]]).to_f32();
        match self {
            Self::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Self::F16 => bytes.chunks_exact(2).map(half).collect(),
            Self::Q8 => {
                let (scales, bytes) = bytes.split_at(2 * rows);
                let mut values = Vec::with_capacity(rows * cols);
                for (scale, row) in scales.chunks_exact(2).zip(bytes.chunks(cols.max(1))) {
                    let scale = half(scale);
                    values.extend(row.iter().map(|b| f32::from(*b as i8) * scale));
                }
                values
            }
            Self::Q4 => {
                let blocks = cols.div_ceil(Q4_BLOCK);
                let (scales, bytes) = bytes.split_at(2 * rows * blocks);
                let mut values = Vec::with_capacity(rows * cols);
                for (scales, row) in scales.chunks(2 * blocks.max(1)).zip(bytes.chunks(cols.div_ceil(2).max(1))) {
                    values.extend((0..cols).map(|i| {
                        let nibble = row[i / 2] >> (4 * (i % 2)) & 15;
                        f32::from(i16::from(nibble) - 8) * half(&scales[2 * (i / Q4_BLOCK)..])
                    }));
                }
                values
            }
        }
    }
}

/// The f16 step that brings the largest magnitude of `values` to `limit`.
fn symmetric_scale(values: &[f32], limit: f32) -> f16 {
    f16::from_f32(values.iter().fold(0f32, |max, v| max.max(v.abs())) / limit)
}

fn quantise(value: f32, scale: f16, limit: f32) -> i8 {
    let scale = scale.to_f32();
    if scale == 0.0 { 0 } else { (value / scale).round().clamp(-limit, limit) as i8 }
}

/// The first dimension and the product of the rest; a scalar or a vector is a column, and a table `[1, rows, columns]`
/// is its rows.
pub fn matrix(shape: &[usize]) -> (usize, usize) {
    if let [1, rows, columns] = *shape {
        return (rows, columns);
    }
    (shape.first().copied().unwrap_or(1), shape.iter().skip(1).product())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(rows: usize, cols: usize) -> Vec<f32> {
        (0..rows * cols).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * (1 + i / cols) as f32).collect()
    }

    #[test]
    fn every_dtype_round_trips_within_its_step() {
        for (rows, cols) in [(3, 32), (2, 45), (5, 1), (1, 33)] {
            let original = values(rows, cols);
            for (dtype, step) in [
                (StoredDtype::F32, 0.0),
                (StoredDtype::F16, 1.0 / 1024.0),
                (StoredDtype::Q8, 1.0 / 127.0),
                (StoredDtype::Q4, 1.0 / 7.0),
            ] {
                let bytes = dtype.encode(&original, cols);
                assert_eq!(Some(bytes.len()), dtype.byte_len(rows, cols), "{dtype:?} {rows}x{cols}");
                let decoded = dtype.decode(&bytes, rows, cols);
                assert_eq!(decoded.len(), original.len());
                for (row, (a, b)) in original.chunks(cols).zip(decoded.chunks(cols)).enumerate() {
                    let largest = a.iter().fold(0f32, |m, v| m.max(v.abs()));
                    for (a, b) in a.iter().zip(b) {
                        assert!((a - b).abs() <= 0.51 * step * largest + 1e-6, "{dtype:?} row {row}: {a} became {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_of_zeros_stays_zero() {
        for dtype in [StoredDtype::Q8, StoredDtype::Q4] {
            assert_eq!(dtype.decode(&dtype.encode(&[0.0; 40], 40), 1, 40), vec![0.0; 40]);
        }
    }
}
