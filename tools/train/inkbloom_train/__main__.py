from inkbloom_train.cli import main

raise SystemExit(main())
