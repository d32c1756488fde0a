//! Optimiser updates, elementwise over pieces of each parameter; rules in [`snn_core::backend::UpdateRule`].

use rayon::prelude::*;
use snn_core::backend::{Optimise, Update, UpdateRule, UpdateSlot};
use snn_core::error::{Result, check_len};

use crate::memory::{Cpu, PIECE};
use crate::simd;

/// Entries of a piece of an update: the pieces of a quarter of a million parameters occupy several threads evenly.
const UPDATE_PIECE: usize = 1 << 13;

impl Optimise for Cpu {
    fn update(&self, update: &Update, slots: &mut [UpdateSlot<'_, Self>]) -> Result<()> {
        let mut pieces = Vec::new();
        for slot in slots {
            let len = slot.value.len();
            for (arg, got) in [("grad", slot.grad.len()), ("first", slot.first.len()), ("second", slot.second.len())] {
                check_len("update", arg, got, len)?;
            }
            let decay = if slot.decays { update.weight_decay } else { 0.0 };
            let values = slot.value.chunks_mut(UPDATE_PIECE).zip(slot.grad.chunks(UPDATE_PIECE));
            let moments = slot.first.chunks_mut(UPDATE_PIECE).zip(slot.second.chunks_mut(UPDATE_PIECE));
            pieces.extend(values.zip(moments).map(|piece| (decay as f32, piece)));
        }
        let work = |(decay, ((p, g), (first, second)))| {
            simd::run(
                #[inline(always)]
                || update_piece(update, decay, p, g, first, second),
            );
        };
        self.each_piece(pieces.into_iter(), work);
        Ok(())
    }

    fn sum_of_squares(&self, x: &Vec<f32>) -> Result<f64> {
        let parts: Vec<f64> = self.install(|| {
            x.par_chunks(PIECE).map(|piece| piece.iter().map(|&v| f64::from(v) * f64::from(v)).sum()).collect()
        });
        Ok(parts.iter().sum())
    }

    fn scale(&self, factor: f64, x: &mut Vec<f32>) -> Result<()> {
        self.each_piece(x.chunks_mut(PIECE), |piece| {
            simd::run(
                #[inline(always)]
                || piece.iter_mut().for_each(|v| *v *= factor as f32),
            );
        });
        Ok(())
    }
}

#[inline(always)]
fn update_piece(update: &Update, decay: f32, p: &mut [f32], g: &[f32], first: &mut [f32], second: &mut [f32]) {
    let lr = update.learning_rate;
    let bias = |beta: f64| 1.0 - beta.powf(update.step as f64);
    let entries = p.iter_mut().zip(g).zip(first.iter_mut().zip(second.iter_mut()));
    match update.rule {
        UpdateRule::Sgd { momentum, nesterov } => {
            let (lr, m) = (lr as f32, momentum as f32);
            for ((p, &g), (v, _)) in entries {
                let g = g + decay * *p;
                if momentum == 0.0 {
                    *p -= lr * g;
                } else {
                    *v = m * *v + g;
                    *p -= lr * if nesterov { g + m * *v } else { *v };
                }
            }
        }
        UpdateRule::Adam { beta1, beta2, eps, decoupled } => {
            let (b1, c1, b2, c2) = (beta1 as f32, (1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
            let (step, root, eps) = ((lr / bias(beta1)) as f32, (1.0 / bias(beta2).sqrt()) as f32, eps as f32);
            let (shrink, through) = if decoupled { (1.0 - lr as f32 * decay, 0.0) } else { (1.0, decay) };
            for ((p, &g), (m, v)) in entries {
                *p *= shrink;
                let g = g + through * *p;
                *m = b1 * *m + c1 * g;
                *v = b2 * *v + c2 * (g * g);
                *p -= step * *m / (v.sqrt() * root + eps);
            }
        }
        UpdateRule::NAdam { beta1, beta2, eps } => {
            let (b1, c1, b2, c2) = (beta1 as f32, (1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
            let (step, root, eps) = ((lr / bias(beta1)) as f32, (1.0 / bias(beta2).sqrt()) as f32, eps as f32);
            for ((p, &g), (m, v)) in entries {
                let g = g + decay * *p;
                *m = b1 * *m + c1 * g;
                *v = b2 * *v + c2 * (g * g);
                *p -= step * (b1 * *m + c1 * g) / (v.sqrt() * root + eps);
            }
        }
        UpdateRule::Adamax { beta1, beta2, eps } => {
            let (b1, c1, b2, eps) = (beta1 as f32, (1.0 - beta1) as f32, beta2 as f32, eps as f32);
            let step = (lr / bias(beta1)) as f32;
            for ((p, &g), (m, u)) in entries {
                let g = g + decay * *p;
                *m = b1 * *m + c1 * g;
                *u = (b2 * *u).max(g.abs() + eps);
                *p -= step * *m / *u;
            }
        }
    }
}
