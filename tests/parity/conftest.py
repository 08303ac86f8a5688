"""Counts of the parity suite, printed at the end of a run."""


def pytest_terminal_summary(terminalreporter):
  def count(outcome):
    return sum(
      'test_golden_case' in report.nodeid and report.when in ('call', 'setup')
      for report in terminalreporter.stats.get(outcome, [])
    )

  passed, failed, skipped = count('passed'), count('failed'), count('skipped')
  if passed + failed + skipped:
    terminalreporter.write_line(
      f'golden cases: {passed + failed} ran, {passed} of them within tolerance; {skipped} skipped'
      ' (kinds to come)'
    )
