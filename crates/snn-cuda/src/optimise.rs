//! Optimiser updates, all parameters in one launch; rules in [`snn_core::backend::UpdateRule`].

use snn_core::backend::{Memory, Optimise, Update, UpdateRule, UpdateSlot};
use snn_core::error::{Result, check_len};

use crate::device::Cuda;
use crate::kernels::OPTIMISE;
use crate::launch::Fields;
use crate::memory::Buffer;

/// Parameters of a launch: their addresses travel with it. `MOST` in the kernel.
const MOST: usize = 64;

/// Entries of a block. `SPAN` in the kernel.
const SPAN: usize = 1024;

/// Entries whose squares a block sums.
const SQUARES: usize = 1 << 15;

impl Optimise for Cuda {
    fn update(&self, update: &Update, slots: &mut [UpdateSlot<'_, Self>]) -> Result<()> {
        for slot in &*slots {
            let len = slot.value.len();
            for (arg, got) in [("grad", slot.grad.len()), ("first", slot.first.len()), ("second", slot.second.len())] {
                check_len("update", arg, got, len)?;
            }
        }
        // In parts only where a model has more parameters than a launch can carry.
        for slots in slots.chunks(MOST) {
            let (table, blocks) = table(update, slots);
            self.launch(&OPTIMISE, "update").grid(blocks, 1, 1).block(256, 1).arg(table).arg(rule(update)).run()?;
        }
        Ok(())
    }

    fn sum_of_squares(&self, x: &Buffer<f32>) -> Result<f64> {
        let blocks = x.len().div_ceil(SQUARES);
        let mut sums = self.scratch::<f64>(blocks)?;
        self.launch(&OPTIMISE, "sum_of_squares")
            .grid(blocks, 1, 1)
            .block(256, 1)
            .arg(x)
            .arg(x.len() as i64)
            .arg(SQUARES as i32)
            .arg(&mut sums)
            .run()?;
        Ok(self.to_host(&sums)?.iter().sum())
    }

    fn scale(&self, factor: f64, x: &mut Buffer<f32>) -> Result<()> {
        let len = x.len();
        self.launch(&OPTIMISE, "scale").threads(len).arg(factor as f32).arg(len as i64).arg(x).run()
    }
}

/// Where the parameters are, and how many blocks they need.
fn table(update: &Update, slots: &[UpdateSlot<'_, Cuda>]) -> (Fields, usize) {
    let mut blocks = 0;
    let mut table = Fields::new("Slots").unsigned(slots.len() as u32);
    for slot in slots {
        let len = slot.value.len();
        let numbers =
            [slot.value.address(), slot.grad.address(), slot.first.address(), slot.second.address(), len as u64];
        for number in numbers {
            table = table.unsigned(number as u32).unsigned((number >> 32) as u32);
        }
        let decay = if slot.decays { update.weight_decay } else { 0.0 };
        let decay = match update.rule {
            // What is kept of the parameter, rounded as on the CPU.
            UpdateRule::Adam { decoupled: true, .. } => f64::from(1.0 - update.learning_rate as f32 * decay as f32),
            _ => decay,
        };
        table = table.float(decay).unsigned(blocks as u32);
        blocks += len.div_ceil(SPAN);
    }
    (table.padded(1 + 12 * MOST), blocks)
}

/// The rule as the kernel has it.
fn rule(update: &Update) -> Fields {
    let bias = |beta: f64| 1.0 - beta.powf(update.step as f64);
    let of = |kind: i32, rate: f64, first: f64, (second, eps, root): (f64, f64, f64), decoupled: bool| {
        let moments = [rate, first, 1.0 - first, second, 1.0 - second, eps, root];
        let fields = Fields::new("Rule").int(kind);
        moments.into_iter().fold(fields, Fields::float).int(i32::from(decoupled))
    };
    let rate = update.learning_rate;
    match update.rule {
        UpdateRule::Sgd { momentum, nesterov } => of(0, rate, momentum, (0.0, 0.0, 0.0), nesterov),
        UpdateRule::Adam { beta1, beta2, eps, decoupled } => {
            of(1, rate / bias(beta1), beta1, (beta2, eps, 1.0 / bias(beta2).sqrt()), decoupled)
        }
        UpdateRule::NAdam { beta1, beta2, eps } => {
            of(2, rate / bias(beta1), beta1, (beta2, eps, 1.0 / bias(beta2).sqrt()), false)
        }
        UpdateRule::Adamax { beta1, beta2, eps } => of(3, rate / bias(beta1), beta1, (beta2, eps, 0.0), false),
    }
}
