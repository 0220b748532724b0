package certmanager

// What the tests of package certmanager_test share with those of this one.
var (
	XNewManager = newManager
	XTryNew     = tryNew
)
