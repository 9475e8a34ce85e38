"""A page on which people steer lam: explore prompts, sweep, choose by eye. Needs ``pip install 'deradiff[app]'``.

Below the page nothing knows gradio: `requests` is what may be asked for, `turns` who may call the pipeline, `engine`
draws, `sweeps` grows the run in the background, `ballots` shows blind pairs. Each tab is a file, `page` joins them,
`server` serves them.
"""
