module github.com/ergotls/ergotls

go 1.26

require (
	ergo.services/ergo v1.999.310
	github.com/fsnotify/fsnotify v1.10.1
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
)

replace ergo.services/ergo => ./engine
