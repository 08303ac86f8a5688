"""Every case of the golden folder runs through the real modules, or is named as one to come."""

from collections.abc import Iterator

import jax
import pytest

from tests.parity import adapters, ave, avqa, avs, avvp, backbones, golden, lavish, ma_avt, matching

RUNNERS = {
  'swin_v2': backbones.run_swin_v2,
  'htsat': backbones.run_htsat,
  'front_end': backbones.run_front_end,
  'dgsct_adapter': adapters.run_dgsct_adapter,
  'ave': ave.run_ave,
  'ave_grad': ave.run_gradients,
  'ave_train': ave.run_gradients,
  'ave_head': ave.run_ave_head,
  'ave_metrics': ave.run_ave_metrics,
  'avqa': avqa.run_avqa,
  'avqa_head': avqa.run_head,
  'avqa_head_grad': avqa.run_head_gradients,
  'avqa_grounding': avqa.run_grounding,
  'avqa_grounding_head': avqa.run_grounding_head,
  'avvp': avvp.run_avvp,
  'avvp_head': avvp.run_head,
  'avvp_head_grad': avvp.run_head_gradients,
  'avvp_metrics': avvp.run_metrics,
  'avs': avs.run_avs,
  'avs_head': avs.run_head,
  'avs_tpavi': avs.run_tpavi,
  'avs_metrics': avs.run_metrics,
  'matching': matching.run_matching,
  'kaldi': lavish.run_front_end,
  'lavish_adapter': lavish.run_adapter,
  'lavish_ave': lavish.run_ave,
  'ma_avt': ma_avt.run,
}

# Cases that have no runner yet, by name: a case of a kind that is not recognised is a failure
# unless it stands here, so that a renamed field cannot turn a case that ran into one that is
# skipped.
TO_COME = {'losses_misc'}

# rms of the difference, relative, where a case does not say what the reference loses to float32; of
# other kinds 1e-5. The full cases of AVS do not say; in their small ones it loses 3.6e-5 in `map3`.
RELATIVE = {'ave_grad': 1e-3, 'ave_train': 1e-3, 'avs': 4e-5}


def is_slow(case: golden.Case) -> bool:
  return case.kind in ('ave_grad', 'ave_train') or case.kind in RUNNERS and case.size > 25e6


@pytest.mark.parametrize(
  'case',
  [
    pytest.param(case, id=case.name, marks=[pytest.mark.slow] * is_slow(case))
    for case in golden.cases()
  ],
)
def test_golden_case_is_reproduced(case):
  if case.kind not in RUNNERS:
    assert case.name in TO_COME, (
      f'{case.name} is of the kind {case.kind!r}, which has no runner: mend Case.kind, or give the'
      ' kind a runner.'
    )
    pytest.skip(f'golden case of a kind without a runner yet: {case.json["what"][:70]}')
  with jax.default_matmul_precision('highest'):
    got, relative = RUNNERS[case.kind](case), RELATIVE.get(case.kind, 1e-5)
    compare = golden.compare_first if isinstance(got, Iterator) else golden.compare
    print(compare(case, got, relative))


def test_no_case_that_has_a_runner_is_named_as_one_to_come():
  ready = {case.name for case in golden.cases() if case.kind in RUNNERS}
  assert not ready & TO_COME
