package internal_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

var (
	// rowsNamed matches "row 2.6" and "rows 1.4, 1.5 and 3.6", also across the lines of a comment.
	rowsNamed = regexp.MustCompile(`\b[Rr]ows?[ \n/]+\d\.\d+(?:(?:,| and| to)[ \n/]+(?:\d\.\d+|and \d\.\d+))*`)
	rowNumber = regexp.MustCompile(`\d\.\d+`)
	// sectionsNamed leaves out the RFCs' sections.
	sectionsNamed = regexp.MustCompile(`\b[Cc]ontract[ \n/]+sections? (\d)`)
)

// docs/contract.md has all rows and sections that comments and tests name.
func TestContractHasEveryRowThatIsNamed(t *testing.T) {
	contract, err := os.ReadFile("../docs/contract.md")
	assert.NilError(t, err)
	named := 0
	assert.NilError(t, filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, rows := range rowsNamed.FindAllString(string(source), -1) {
			for _, row := range rowNumber.FindAllString(rows, -1) {
				named++
				assert.Check(t, strings.Contains(string(contract), "\n| "+row+" |"), "%s names row %s, which docs/contract.md does not have", path, row)
			}
		}
		for _, section := range sectionsNamed.FindAllStringSubmatch(string(source), -1) {
			named++
			assert.Check(t, strings.Contains(string(contract), "\n## "+section[1]+". "), "%s names contract section %s, which docs/contract.md does not have", path, section[1])
		}
		return nil
	}))
	assert.Assert(t, named > 20, "%d rows and sections found: has the spelling changed?", named)
}
