"""The findings of "Distilling the Knowledge in a Neural Network" on MNIST, by softcask's students.

make paper                          # everything that is missing, then docs/paper.md
python -m examples.paper mnist      # one section
python -m examples.paper --list     # what there is, and what is missing

Each trained net leaves a small record in `results/`, which is committed; nets and stores stay in `cache/`,
which is not. Killed and run again, it goes on where it was. See docs/paper.md.
"""
